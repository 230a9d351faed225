// Member: who takes part in an operation, as which rank, with which amounts; and how subgroups end.
#include <algorithm>
#include <set>
#include <utility>

#include "base/mark.hpp"
#include "protocol/member.hpp"

namespace pyccl::protocol {

const std::vector<PeerId>& Member::participants(OpKey op) const {
  static const std::vector<PeerId> nobody;
  if (op.group == group_) return group_peers_;
  const auto found = subgroups_.find(op.group);
  return found == subgroups_.end() ? nobody : found->second;
}

bool Member::takes_part(PeerId peer, OpKey key) const {
  return std::ranges::find(participants(key), peer) != participants(key).end();
}

// As far as this member can know: a subgroup that it has not used yet may be any of its group.
bool Member::may_take_part(PeerId peer, OpKey key) const {
  if (key.group == group_ || subgroups_.contains(key.group)) return takes_part(peer, key);
  return is_subgroup(key.group) && std::ranges::find(group_peers_, peer) != group_peers_.end();
}

std::optional<Rank> Member::rank_in(OpKey key, PeerId peer) const {
  const std::vector<PeerId>& ranks = participants(key);
  const auto found = std::ranges::find(ranks, peer);
  if (found == ranks.end()) return std::nullopt;
  return static_cast<Rank>(found - ranks.begin());
}

std::vector<PeerId> Member::others_in(OpKey key) const {
  std::vector<PeerId> others = participants(key);
  std::erase(others, options_.peer);
  return others;
}

std::string Member::name_in(OpKey key, PeerId peer) const {
  const auto rank = rank_in(key, peer);
  return rank ? "rank " + std::to_string(*rank) : "peer " + to_string(peer);
}

// Whether these members can be a subgroup with this id in the present view.
Status Member::may_use(GroupId id, const std::vector<PeerId>& members) const {
  const auto invalid = [](const std::string& why) { return Status(Code::invalid_argument, why); };
  if (const auto known = subgroups_.find(id); known != subgroups_.end()) {
    if (known->second == members) return {};
    return invalid("two subgroups have the same id: give one of them another name");
  }
  if (!is_subgroup(id)) return invalid("this is the id of no subgroup");
  const std::set<PeerId> different(members.begin(), members.end());
  if (different.size() != members.size()) return invalid("a subgroup names a member twice");
  if (!different.contains(options_.peer)) return invalid("this peer is no member of the subgroup");
  for (PeerId peer : members) {
    const MemberInfo* info = view_.find(peer);
    if (info == nullptr) {
      return {Code::peer_lost,
              "a member of the subgroup, peer " + to_string(peer) +
                  ", is not in the view any more: make a new one",
              peer};
    }
    if (group_id(info->group) != group_) {
      return invalid("peer " + to_string(peer) + " is in the group " + info->group +
                     ": a subgroup is of one group");
    }
  }
  if (subgroups_.size() >= subgroups_max) {
    return {Code::limit_exceeded,
            "more than " + std::to_string(subgroups_max) + " subgroups of members of one view"};
  }
  return {};
}

// Whoever spoke of the operation before this member knew who is in its subgroup.
void Member::forget_strangers(OpKey key, Operation& operation) {
  std::erase_if(operation.arrivals, [&](const auto& arrival) {
    if (takes_part(arrival.first, key)) return false;
    uncount(arrival.first);
    return true;
  });
}

// A decision of the next view speaks of a subgroup that this member has not used yet.
bool Member::learn_subgroup(GroupId id, const View& next) {
  if (PYCCL_MUTANT("failure-of-unknown-subgroup")) return subgroups_.contains(id);
  if (subgroups_.contains(id)) return true;
  const auto described = std::ranges::find(next.subgroups, id, &Subgroup::id);
  if (described == next.subgroups.end() || subgroups_.size() >= subgroups_max) return false;
  std::vector<PeerId> peers = next.peers_of(*described);
  if (std::ranges::find(peers, options_.peer) == peers.end()) return false;
  PYCCL_MARK("learned of a subgroup by its failure");
  subgroups_.emplace(id, std::move(peers));
  return true;
}

// Those that lose a member with the next view. What that view commits has been committed; nothing
// else of them can be. Should that peer come back, because it did not hear that it was admitted,
// all members begin anew.
void Member::end_subgroups(const View& next) {
  std::map<GroupId, Status> ending;
  for (auto& [id, members] : subgroups_) {
    const auto lost =
        std::ranges::find_if(members, [&](PeerId peer) { return next.find(peer) == nullptr; });
    if (lost == members.end()) continue;
    if (PYCCL_MUTANT("subgroup-outlives-its-member")) {
      std::erase_if(members, [&](PeerId peer) { return next.find(peer) == nullptr; });
      continue;
    }
    ending.emplace(
        id, Status(Code::peer_lost,
                   "rank " + std::to_string(lost - members.begin()) + " of the subgroup, peer " +
                       to_string(*lost) + ", is not in the view any more: " + next.reason,
                   *lost));
  }
  for (const auto& [id, why] : ending) end_subgroup(id, why);
}

void Member::end_subgroup(GroupId id, const Status& why) {
  for (auto at = operations_.lower_bound({id, 0, 0});
       at != operations_.end() && at->first.group == id;) {
    const auto& [key, operation] = *at++;
    if (!operation.posted) continue;
    PYCCL_MARK("operation of a subgroup that lost a member");
    if (operation.late) PYCCL_MARK("late operation of a subgroup that lost a member");
    outbox.push_back(OperationFailed{key, why});
    close(key);
  }
  failures_.drop(id);
  next_sequences_.erase(next_sequences_.lower_bound({id, 0}),
                        next_sequences_.upper_bound({id, ~std::uint32_t{0}}));
  subgroups_.erase(id);
}

Status Member::check_amounts(const Call& call, const std::vector<PeerId>& ranks) const {
  const std::size_t wanted = call.descriptor.uneven ? ranks.size() : 0;
  if (call.gives.size() != wanted || call.takes.size() != wanted) {
    return {Code::invalid_argument, "amounts for " + std::to_string(call.gives.size()) +
                                        " ranks and from " + std::to_string(call.takes.size()) +
                                        ", where " + std::to_string(wanted) + " were expected"};
  }
  for (std::size_t rank = 0; rank < wanted; ++rank) {
    if (ranks[rank] != options_.peer || call.gives[rank] == call.takes[rank]) continue;
    return {Code::invalid_argument, "this rank gives itself " + std::to_string(call.gives[rank]) +
                                        " elements and takes " + std::to_string(call.takes[rank])};
  }
  return {};
}

// The sentence names the lower rank first, so that both sides say the same.
Status Member::different(OpKey key, const Operation& operation, PeerId from,
                         const Arrival& arrival) const {
  std::string mine = name_in(key, options_.peer) + " called " + to_string(operation.descriptor);
  std::string theirs = name_in(key, from) + " called " + to_string(arrival.descriptor);
  if (*rank_in(key, from) < *rank_in(key, options_.peer)) std::swap(mine, theirs);
  std::string text = to_string(key) + ": " + mine + ", " + theirs;
  const auto& shares = operation.descriptor.shares;
  const auto& others = arrival.descriptor.shares;
  if (shares.size() == others.size()) {
    const auto [own, other] = std::ranges::mismatch(shares, others);
    // The sentence shows no more than the first few.
    if (own != shares.end()) {
      text += "; the share of rank " + std::to_string(own - shares.begin()) + " is " +
              std::to_string(std::min(*own, *other)) + " or " +
              std::to_string(std::max(*own, *other));
    }
  }
  return {Code::mismatch, std::move(text), from};
}

Status Member::unequal_amounts(OpKey key, const Operation& operation, PeerId from,
                               const Arrival& arrival) const {
  if (!operation.descriptor.uneven || PYCCL_MUTANT("amounts-not-compared")) return {};
  const auto rank = static_cast<std::size_t>(*rank_in(key, from));
  const auto sentence = [&](PeerId giver, std::uint64_t gives, PeerId taker, std::uint64_t takes) {
    return Status(Code::mismatch,
                  to_string(key) + ": " + name_in(key, giver) + " gives " + name_in(key, taker) +
                      " " + std::to_string(gives) + " elements, " + name_in(key, taker) +
                      " takes " + std::to_string(takes),
                  from);
  };
  if (operation.gives[rank] != arrival.takes) {
    return sentence(options_.peer, operation.gives[rank], from, arrival.takes);
  }
  if (operation.takes[rank] != arrival.gives) {
    return sentence(from, arrival.gives, options_.peer, operation.takes[rank]);
  }
  return {};
}

}  // namespace pyccl::protocol
