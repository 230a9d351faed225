// Lookups in a view. Views are small and rarely searched, so these walk the list.
#include "protocol/view.hpp"

namespace pyccl::protocol {

const MemberInfo* View::find(PeerId peer) const {
  for (const MemberInfo& member : members) {
    if (member.peer == peer) return &member;
  }
  return nullptr;
}

std::vector<PeerId> View::group_members(GroupId group) const {
  std::vector<PeerId> peers;
  for (const MemberInfo& member : members) {
    if (group_id(member.group) == group) peers.push_back(member.peer);
  }
  return peers;
}

std::optional<Rank> View::rank_of(PeerId peer) const {
  const MemberInfo* member = find(peer);
  if (member == nullptr) return std::nullopt;
  Rank rank = 0;
  for (const MemberInfo& other : members) {
    if (other.peer == peer) return rank;
    if (other.group == member->group) ++rank;
  }
  return std::nullopt;
}

}  // namespace pyccl::protocol
