// Lookups in a view. Views are small and rarely searched, so these walk the list.
#include "protocol/view.hpp"

#include <algorithm>

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

std::vector<Subgroup> View::subgroups_of(const Subgroups& known) const {
  std::map<PeerId, std::uint8_t> places;
  for (const MemberInfo& member : members) {
    places.emplace(member.peer, static_cast<std::uint8_t>(places.size()));
  }
  std::vector<Subgroup> list;
  for (const auto& [id, peers] : known) {
    Subgroup& one = list.emplace_back(Subgroup{id, {}});
    for (PeerId peer : peers) {
      if (const auto place = places.find(peer); place != places.end()) {
        one.places.push_back(place->second);
      }
    }
  }
  return list;
}

std::vector<PeerId> View::peers_of(const Subgroup& subgroup) const {
  std::vector<PeerId> peers;
  std::vector<bool> named(members.size());
  for (const std::uint8_t place : subgroup.places) {
    if (place >= members.size() || named[place]) return {};
    named[place] = true;
    peers.push_back(members[place].peer);
  }
  return peers;
}

const GroupLinks* View::links_of(GroupId group) const {
  const auto found = std::ranges::find(links, group, &GroupLinks::group);
  if (found == links.end()) return nullptr;
  const std::size_t ranks = group_members(group).size();
  std::vector<bool> named(ranks);
  for (const std::uint8_t rank : found->ring) {
    if (rank >= ranks || named[rank]) return nullptr;
    named[rank] = true;
  }
  return found->ring.empty() || found->ring.size() == ranks ? &*found : nullptr;
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
