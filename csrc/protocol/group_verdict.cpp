// In this order, for each operation that is open at a survivor:
//   committed by anyone, or whole at every survivor -> committed, for all have the same result
//   a member of the subgroup is lost -> it ends, and so does the subgroup
//   refused by anyone -> failed with the status of the lowest-ranked one who did, at every member;
//       but if only its caller knows of it and cancelled it -> withdrawn, nobody else notices
//   its root is lost, or a member of the group and the operation was not to be retried -> failed
//   else it restarts
#include "protocol/group_verdict.hpp"

#include <algorithm>

#include "base/mark.hpp"

namespace pyccl::protocol {
namespace {

bool is_open(const OperationReport& report) { return report.state != OperationState::committed; }

}  // namespace

Voter::Voter(PeerId who, const Report& said) : peer(who), report(&said) {
  for (const OperationReport& operation : said.operations) {
    operations.emplace(operation.op, &operation);
  }
  for (const NextSequence& number : said.next_sequences) {
    next.emplace(Numbering{number.group, number.tag}, number.seq);
  }
}

bool Voter::committed_long_ago(OpKey op) const {
  const auto found = next.find(numbering(op));
  return !operations.contains(op) && found != next.end() && op.seq < found->second;
}

// What the voters say of one operation.
struct GroupVerdict::Tally {
  bool committed = false;
  bool hint_known = false;
  bool committed_hint = false;
  bool own_hints = false;
  bool raise = false;
  PeerId lost_root;
  std::size_t whole = 0;
  std::size_t posted = 0;
  const Voter* refuser = nullptr;  // of those who refused it the one with the lowest rank
};

GroupVerdict::GroupVerdict(GroupId id, const std::vector<PeerId>& members, const Voters& voters,
                           const std::map<PeerId, std::string>& lost)
    : id_(id), members_(members) {
  Rank rank = 0;
  for (PeerId peer : members) {
    if (const auto voter = voters.find(peer); voter != voters.end()) {
      voters_.push_back(&voter->second);
    } else if (const auto why = lost.find(peer); why != lost.end()) {
      if (!loss_.empty()) loss_ += ", ";
      loss_ += "rank " + std::to_string(rank) + " (peer " + to_string(peer) + ") " + why->second;
      lost_.insert(peer);
      lost_last_ = peer;
    }
    ++rank;
  }
}

std::set<OpKey> GroupVerdict::open() const {
  std::set<OpKey> open;
  for (const Voter* voter : voters_) {
    for (auto at = voter->operations.lower_bound({id_, 0, 0});
         at != voter->operations.end() && at->first.group == id_; ++at) {
      if (is_open(*at->second)) open.insert(at->first);
    }
  }
  return open;
}

std::size_t GroupVerdict::open_at(const Voter& voter) const {
  std::size_t count = 0;
  for (auto at = voter.operations.lower_bound({id_, 0, 0});
       at != voter.operations.end() && at->first.group == id_; ++at) {
    if (is_open(*at->second)) ++count;
  }
  return count;
}

GroupVerdict::Tally GroupVerdict::count(OpKey op) const {
  Tally tally;
  for (const Voter* voter : voters_) {
    if (voter->committed_long_ago(op)) tally.committed = true;
    const auto found = voter->operations.find(op);
    if (found == voter->operations.end()) continue;
    const OperationReport& report = *found->second;
    ++tally.posted;
    if (report.state == OperationState::committed) {
      tally.committed = tally.hint_known = true;
      tally.committed_hint = tally.committed_hint || report.hint;
    } else {
      tally.own_hints = tally.own_hints || report.hint;
    }
    if (report.state == OperationState::whole) ++tally.whole;
    if (!report.status.ok() && tally.refuser == nullptr) tally.refuser = voter;
    tally.raise = tally.raise || report.on_loss == OnLoss::raise;
    if (lost_.contains(report.root)) tally.lost_root = report.root;
  }
  return tally;
}

GroupVerdict::Judgement GroupVerdict::judge(OpKey op) const {
  const Tally tally = count(op);
  if (tally.committed || tally.whole == voters_.size()) {
    if (is_subgroup(id_)) PYCCL_MARK("operation of a subgroup committed by a decision");
    // A Done is immutable with its hint, so who committed saw the final one (rule R11).
    const bool hint = tally.hint_known ? tally.committed_hint : tally.own_hints;
    return {Fate::decided, {op, Outcome::committed, hint, {}}};
  }
  if (is_subgroup(id_) && !lost_.empty()) return {Fate::ends, {}};
  if (tally.refuser != nullptr) return {Fate::decided, refused(op, tally), true};
  if (tally.lost_root) {
    PYCCL_MARK("failed because its root was lost");
    return {Fate::decided,
            {op, Outcome::failed, false, Status(Code::peer_lost, loss_, tally.lost_root)}};
  }
  if (!lost_.empty() && tally.raise) {
    PYCCL_MARK("failed because a member was lost");
    return {Fate::decided,
            {op, Outcome::failed, false, Status(Code::peer_lost, loss_, lost_last_)}};
  }
  return {Fate::restarts, {}};
}

Decision GroupVerdict::refused(OpKey op, const Tally& tally) const {
  const Voter& refuser = *tally.refuser;
  const Status& status = refuser.operations.at(op)->status;
  const auto next = refuser.next.find(numbering(op));
  const bool last = next != refuser.next.end() && next->second == op.seq + 1;
  if (status.code() == Code::cancelled && tally.posted == 1 && last) {
    // Others may have posted it since their report: theirs goes on.
    return {op, Outcome::withdrawn, false, Status(Code::cancelled, status.reason(), refuser.peer)};
  }
  return {op, Outcome::failed, false, status};
}

}  // namespace pyccl::protocol
