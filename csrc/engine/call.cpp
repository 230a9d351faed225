// See call.hpp.
#include "engine/call.hpp"

#include <algorithm>

namespace pyccl::engine {

GroupId group_of(const Request& request, GroupId group) {
  return request.members.empty() ? group : subgroup_id(group, request.members, request.name);
}

std::vector<PeerId> pair_of(PeerId sender, PeerId receiver) { return {sender, receiver}; }

PeerId root_of(const Request& request, const std::vector<PeerId>& ranks) {
  if (request.root < 0 || request.root >= static_cast<Rank>(ranks.size())) return {};
  return ranks[static_cast<std::size_t>(request.root)];
}

protocol::Call call_of(const Request& request, GroupId group, PeerId self,
                       const std::vector<PeerId>& ranks) {
  protocol::Call call;
  call.group = group;
  call.members = request.members;
  call.tag = request.tag;
  call.deadline = request.deadline;
  if (request.send_shares.empty() && request.receive_shares.empty()) return call;
  // Those for other members, and to oneself other than from oneself, the attempt refuses for all:
  // here it would be without a number.
  const bool meant =
      request.send_shares.size() == ranks.size() && request.receive_shares.size() == ranks.size();
  call.gives = meant ? request.send_shares : std::vector<std::uint64_t>(ranks.size());
  call.takes = meant ? request.receive_shares : call.gives;
  const auto own = std::ranges::find(ranks, self) - ranks.begin();
  if (own < std::ssize(ranks)) call.takes[own] = call.gives[own];
  return call;
}

}  // namespace pyccl::engine
