// Group by group with its subgroups, for those share the views of its members: what becomes of each
// operation (group_verdict.cpp), then what of that has room. Refused ones that have none restart,
// and whoever refused one does so again.
#include "protocol/decide.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "base/mark.hpp"
#include "protocol/group_verdict.hpp"

namespace pyccl::protocol {
namespace {

// A group and the subgroups of its members.
class Family {
 public:
  Family(const View& view, GroupId group, const Subgroups& subgroups, const Voters& voters,
         const std::map<PeerId, std::string>& lost) {
    const std::vector<PeerId> members = view.group_members(group);
    groups_.emplace_back(group, members, voters, lost);
    for (const auto& [id, peers] : subgroups) {
      if (std::ranges::find(members, peers.front()) == members.end()) continue;
      groups_.emplace_back(id, peers, voters, lost);
    }
  }

  void decide_all(Verdict& verdict, std::size_t bytes) {
    for (const GroupVerdict& group : groups_) {
      for (const OpKey& op : group.open()) {
        GroupVerdict::Judgement judgement = group.judge(op);
        verdict.restarts = verdict.restarts || judgement.fate == GroupVerdict::Fate::restarts;
        if (judgement.fate != GroupVerdict::Fate::decided) continue;
        const bool waits = judgement.may_wait || PYCCL_MUTANT("certain-waits");
        (waits ? refused_ : certain_).emplace_back(&group, std::move(judgement.decision));
      }
    }
    for (const auto& [group, decision] : certain_) take(*group, decision_bytes);
    for (const Voter* voter : groups_.front().voters()) {
      if (used_[voter->peer] <= decisions_bytes_max - refusal_bytes) continue;
      verdict.too_much = most_open(voter->peer);
      return;
    }
    for (auto& [group, decision] : certain_) add_certain(verdict, bytes, *group, decision);
    for (auto& [group, decision] : refused_) add_refused(verdict, bytes, *group, decision);
  }

  // Joiners are in no subgroup.
  void add_next_sequences(Verdict& verdict) const {
    const GroupId group = groups_.front().id();
    std::map<std::uint32_t, std::uint32_t> highest;
    for (const Voter* voter : groups_.front().voters()) {
      for (auto at = voter->next.lower_bound({group, 0});
           at != voter->next.end() && at->first.first == group; ++at) {
        std::uint32_t& most = highest[at->first.second];
        most = std::max(most, at->second);
      }
      for (const NextSequence& behind : voter->report->behind_failures) {
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
  using Candidate = std::pair<const GroupVerdict*, Decision>;

  // The first decision of a subgroup says who that is.
  std::size_t description_bytes(const GroupVerdict& group) const {
    const bool needed = is_subgroup(group.id()) && !described_.contains(group.id());
    return needed ? subgroup_bytes + group.members().size() : 0;
  }

  // In the views of all that are kept.
  void take(const GroupVerdict& group, std::size_t bytes) {
    bytes += description_bytes(group);
    described_.insert(group.id());
    for (const Voter* voter : group.voters()) used_[voter->peer] += bytes;
  }

  bool fits(const GroupVerdict& group, std::size_t more, std::size_t bytes) {
    more += description_bytes(group);
    return std::ranges::all_of(
        group.voters(), [&](const Voter* voter) { return used_[voter->peer] + more <= bytes; });
  }

  static std::size_t text_bytes(const Decision& decision) {
    return std::min(decision.status.reason().size(), operation_reason_bytes_max);
  }

  static void add(Verdict& verdict, const GroupVerdict& group, Decision& decision) {
    if (is_subgroup(group.id())) verdict.subgroups.emplace(group.id(), group.members());
    verdict.decisions.push_back(std::move(decision));
  }

  // Its bytes are taken already, but for those of its text.
  void add_certain(Verdict& verdict, std::size_t bytes, const GroupVerdict& group,
                   Decision& decision) {
    const std::size_t text = text_bytes(decision);
    if (fits(group, text + refusal_bytes, bytes)) {
      take(group, text);
    } else if (!decision.status.ok()) {
      decision.status = Status(decision.status.code(), "a member was lost", decision.status.peer());
    }
    add(verdict, group, decision);
  }

  // One has its room whatever else there is.
  void add_refused(Verdict& verdict, std::size_t bytes, const GroupVerdict& group,
                   Decision& decision) {
    const std::size_t needed = decision_bytes + text_bytes(decision);
    if (refused_one_ && !fits(group, needed, bytes)) {
      PYCCL_MARK("decisions wait for the next view");
      verdict.restarts = true;
      return;
    }
    refused_one_ = true;
    take(group, needed);
    add(verdict, group, decision);
  }

  // Of those that share a group with this one. Of equals the later rank goes.
  PeerId most_open(PeerId peer) const {
    std::map<PeerId, std::size_t> open;
    for (const GroupVerdict& group : groups_) {
      if (std::ranges::find(group.members(), peer) == group.members().end()) continue;
      for (const Voter* voter : group.voters()) open[voter->peer] += group.open_at(*voter);
    }
    const Voter* most = groups_.front().voters().front();
    for (const Voter* voter : groups_.front().voters()) {
      if (open[voter->peer] >= open[most->peer]) most = voter;
    }
    return most->peer;
  }

  std::vector<GroupVerdict> groups_;  // the group, then its subgroups
  std::vector<Candidate> certain_;
  std::vector<Candidate> refused_;
  std::map<PeerId, std::size_t> used_;  // bytes of each member's view
  std::set<GroupId> described_;
  bool refused_one_ = false;
};

// As their members report them. Two that claim different members for one id have not kept to the
// rules; the first rank is believed, and nobody else is harmed.
Subgroups subgroups_in(const View& view, const Voters& voters) {
  Subgroups subgroups;
  std::map<PeerId, std::string> groups;
  for (const MemberInfo& member : view.members) groups.emplace(member.peer, member.group);
  for (const MemberInfo& member : view.members) {
    const auto voter = voters.find(member.peer);
    if (voter == voters.end()) continue;
    for (const Subgroup& claim : voter->second.report->subgroups) {
      const std::vector<PeerId> peers = view.peers_of(claim);
      const bool sound =
          is_subgroup(claim.id) && std::ranges::find(peers, member.peer) != peers.end() &&
          std::ranges::all_of(peers, [&](PeerId peer) { return groups.at(peer) == member.group; });
      if (sound) subgroups.try_emplace(claim.id, peers);
    }
  }
  return subgroups;
}

}  // namespace

Verdict decide(const View& view, const std::map<PeerId, Report>& reports,
               const std::map<PeerId, std::string>& lost, std::size_t bytes) {
  Voters voters;
  for (const auto& [peer, report] : reports) voters.emplace(peer, Voter(peer, report));
  const Subgroups subgroups = subgroups_in(view, voters);
  std::set<GroupId> groups;
  for (const MemberInfo& member : view.members) groups.insert(group_id(member.group));
  Verdict verdict;
  for (GroupId group : groups) {
    Family family(view, group, subgroups, voters, lost);
    family.decide_all(verdict, bytes);
    if (verdict.too_much) break;
    family.add_next_sequences(verdict);
  }
  return verdict;
}

}  // namespace pyccl::protocol
