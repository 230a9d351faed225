// In this order, for each operation that is open at a survivor:
//   committed by anyone, or whole at every survivor -> committed, for all have the same result
//   refused by anyone -> failed with the status of the lowest-ranked one who did, at every member;
//       but if only its caller knows of it and cancelled it -> withdrawn, nobody else notices
//   a member of the group is lost, and the operation was not to be retried -> failed
//   else it restarts
// Refused ones restart as well while they do not fit.
#include "protocol/decide.hpp"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "base/mark.hpp"

namespace pyccl::protocol {
namespace {

struct Voter {
  PeerId peer;
  const Report* report = nullptr;
  std::map<OpKey, const OperationReport*> operations;
  std::map<std::uint32_t, std::uint32_t> next;  // by tag

  // Numbers that are neither listed nor still to come were committed so long ago that the member
  // has forgotten the hint: it closes an operation in no other way without all others' knowing.
  bool committed_long_ago(OpKey op) const {
    const auto found = next.find(op.tag);
    return !operations.contains(op) && found != next.end() && op.seq < found->second;
  }
};

class GroupVerdict {
 public:
  GroupVerdict(const View& view, GroupId group, const std::map<PeerId, Report>& reports,
               const std::map<PeerId, std::string>& lost) {
    Rank rank = 0;
    for (PeerId peer : view.group_members(group)) {
      if (const auto report = reports.find(peer); report != reports.end()) {
        add_voter(peer, report->second, group);
      } else if (const auto why = lost.find(peer); why != lost.end()) {
        if (!loss_.empty()) loss_ += ", ";
        loss_ += "rank " + std::to_string(rank) + " (peer " + to_string(peer) + ") " + why->second;
        lost_peer_ = peer;
      }
      ++rank;
    }
  }

  void decide_all(Verdict& verdict, std::size_t bytes) const {
    std::set<OpKey> open;
    for (const Voter& voter : voters_) {
      for (const auto& [op, report] : voter.operations) {
        if (report->state != OperationState::committed) open.insert(op);
      }
    }
    std::vector<Decision> certain;
    std::vector<Decision> refused;
    for (const OpKey& op : open) {
      if (auto decision = decide_one(op)) {
        const bool waits = decision->outcome != Outcome::committed && refuser_of(op) != nullptr;
        (waits || PYCCL_MUTANT("certain-waits") ? refused : certain)
            .push_back(std::move(*decision));
      } else {
        verdict.restarts = true;
      }
    }
    if (certain.size() > decisions_certain_max) {
      verdict.too_much = most_open();
      return;
    }
    Fitting fitting{verdict, bytes, certain.size() * decision_bytes};
    for (Decision& decision : certain) fitting.add_certain(std::move(decision));
    for (Decision& decision : refused) fitting.add_refused(std::move(decision));
  }

  void add_next_sequences(GroupId group, Verdict& verdict) const {
    std::map<std::uint32_t, std::uint32_t> highest;
    for (const Voter& voter : voters_) {
      for (const auto& [tag, seq] : voter.next) highest[tag] = std::max(highest[tag], seq);
      for (const NextSequence& behind : voter.report->behind_failures) {
        if (behind.group == group) highest[behind.tag] = std::max(highest[behind.tag], behind.seq);
      }
    }
    std::size_t count = 0;
    for (const auto& [tag, seq] : highest) {
      if (count++ == tags_max) break;
      verdict.next_sequences.push_back({group, tag, seq});
    }
  }

 private:
  // Fills a view's decisions up to a number of bytes, of which one refusal has its share whatever
  // else there is.
  struct Fitting {
    Verdict& verdict;
    std::size_t bytes;
    std::size_t used;
    bool refused_one = false;

    static std::size_t text_bytes(const Decision& decision) {
      return std::min(decision.status.reason().size(), operation_reason_bytes_max);
    }

    // Its bytes are used already, but for those of its text.
    void add_certain(Decision decision) {
      const std::size_t text = text_bytes(decision);
      if (used + text + refusal_bytes <= bytes) {
        used += text;
      } else if (!decision.status.ok()) {
        decision.status =
            Status(decision.status.code(), "a member was lost", decision.status.peer());
      }
      verdict.decisions.push_back(std::move(decision));
    }

    void add_refused(Decision decision) {
      const std::size_t needed = decision_bytes + text_bytes(decision);
      if (refused_one && used + needed > bytes) {
        PYCCL_MARK("decisions wait for the next view");
        verdict.restarts = true;
        return;
      }
      refused_one = true;
      used += needed;
      verdict.decisions.push_back(std::move(decision));
    }
  };

  // Of equals the later rank goes.
  PeerId most_open() const {
    const auto open = [](const Voter& voter) {
      return std::ranges::count_if(voter.operations, [](const auto& entry) {
        return entry.second->state != OperationState::committed;
      });
    };
    const Voter* most = &voters_.front();
    for (const Voter& voter : voters_) {
      if (open(voter) >= open(*most)) most = &voter;
    }
    return most->peer;
  }

  // Of those who refused an operation the one with the lowest rank.
  const Voter* refuser_of(OpKey op) const {
    for (const Voter& voter : voters_) {
      const auto found = voter.operations.find(op);
      if (found != voter.operations.end() && !found->second->status.ok()) return &voter;
    }
    return nullptr;
  }

  void add_voter(PeerId peer, const Report& report, GroupId group) {
    Voter voter;
    voter.peer = peer;
    voter.report = &report;
    for (const OperationReport& operation : report.operations) {
      if (operation.op.group == group) voter.operations.emplace(operation.op, &operation);
    }
    for (const NextSequence& next : report.next_sequences) {
      if (next.group == group) voter.next.emplace(next.tag, next.seq);
    }
    voters_.push_back(std::move(voter));
  }

  std::optional<Decision> decide_one(OpKey op) const {
    bool committed = false;
    bool hint_known = false;
    bool committed_hint = false;
    bool own_hints = false;
    bool raise = false;
    std::size_t whole = 0;
    std::size_t posted = 0;
    const Voter* refuser = refuser_of(op);
    for (const Voter& voter : voters_) {
      if (voter.committed_long_ago(op)) committed = true;
      const auto found = voter.operations.find(op);
      if (found == voter.operations.end()) continue;
      const OperationReport& report = *found->second;
      ++posted;
      if (report.state == OperationState::committed) {
        committed = hint_known = true;
        committed_hint = committed_hint || report.hint;
      } else {
        own_hints = own_hints || report.hint;
      }
      if (report.state == OperationState::whole) ++whole;
      raise = raise || report.on_loss == OnLoss::raise;
    }
    if (committed || whole == voters_.size()) {
      // A Done is immutable with its hint, so who committed saw the final one (rule R11).
      return Decision{op, Outcome::committed, hint_known ? committed_hint : own_hints, {}};
    }
    if (refuser != nullptr) return refused(op, *refuser, posted);
    if (!loss_.empty() && raise) {
      PYCCL_MARK("failed because a member was lost");
      return Decision{op, Outcome::failed, false, Status(Code::peer_lost, loss_, lost_peer_)};
    }
    return std::nullopt;
  }

  Decision refused(OpKey op, const Voter& refuser, std::size_t posted) const {
    const Status& status = refuser.operations.at(op)->status;
    const auto next = refuser.next.find(op.tag);
    const bool last = next != refuser.next.end() && next->second == op.seq + 1;
    if (status.code() == Code::cancelled && posted == 1 && last) {
      // Others may have posted it since their report: theirs goes on.
      return {op, Outcome::withdrawn, false,
              Status(Code::cancelled, status.reason(), refuser.peer)};
    }
    return {op, Outcome::failed, false, status};
  }

  std::vector<Voter> voters_;  // in rank order
  std::string loss_;
  PeerId lost_peer_;
};

}  // namespace

Verdict decide(const View& view, const std::map<PeerId, Report>& reports,
               const std::map<PeerId, std::string>& lost, std::size_t bytes) {
  std::set<GroupId> groups;
  for (const MemberInfo& member : view.members) groups.insert(group_id(member.group));
  Verdict verdict;
  for (GroupId group : groups) {
    const GroupVerdict one(view, group, reports, lost);
    one.decide_all(verdict, bytes);
    if (verdict.too_much) break;
    one.add_next_sequences(group, verdict);
  }
  return verdict;
}

}  // namespace pyccl::protocol
