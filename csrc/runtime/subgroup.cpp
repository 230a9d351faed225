// Ranks become peers; see subgroup.hpp.
#include "runtime/subgroup.hpp"

#include <algorithm>

#include "protocol/limits.hpp"

namespace pyccl::runtime {
namespace {

// No pair's name begins so.
constexpr char named = ':';

Status refuse(std::string why) { return {Code::invalid_argument, std::move(why)}; }

bool exists(const std::vector<PeerId>& peers, Rank rank) {
  return rank >= 0 && static_cast<std::size_t>(rank) < peers.size();
}

std::string no_rank(const std::vector<PeerId>& peers, Rank rank) {
  return "there is no rank " + std::to_string(rank) + " among " + std::to_string(peers.size()) +
         " members";
}

std::string name_of(PairRole role, std::string_view within) {
  return (role == PairRole::partner ? "exchange" : "send") + std::string(within);
}

}  // namespace

bool Subgroup::within(const std::vector<PeerId>& group) const {
  return std::ranges::all_of(
      members, [&](PeerId one) { return std::ranges::find(group, one) != group.end(); });
}

void Subgroup::apply(engine::Request& request) const {
  request.members = members;
  request.name = name;
}

Result<Subgroup> subgroup_of(const std::vector<PeerId>& peers, PeerId self,
                             const std::vector<Rank>& ranks, std::string_view name) {
  if (ranks.empty()) return refuse("a subgroup has at least one rank");
  if (name.size() >= protocol::name_bytes_max) {
    return refuse("a subgroup's name has at most " + std::to_string(protocol::name_bytes_max - 1) +
                  " bytes");
  }
  Subgroup made;
  made.name = named + std::string(name);
  for (const Rank rank : ranks) {
    if (!exists(peers, rank)) return refuse("subgroup: " + no_rank(peers, rank));
    const PeerId peer = peers[static_cast<std::size_t>(rank)];
    if (std::ranges::find(made.members, peer) != made.members.end()) {
      return refuse("subgroup: rank " + std::to_string(rank) + " comes twice");
    }
    if (peer == self) made.rank = static_cast<Rank>(made.members.size());
    made.members.push_back(peer);
  }
  if (made.rank < 0) return refuse("subgroup: the caller's own rank is not among its ranks");
  return made;
}

Result<Subgroup> pair_of(const std::vector<PeerId>& peers, std::size_t members_most, PeerId self,
                         PairRole role, Rank other, std::string_view within) {
  if (!exists(peers, other)) {
    const bool lost = other >= 0 && static_cast<std::size_t>(other) < members_most;
    return lost ? Status(Code::peer_lost, no_rank(peers, other) + " any more")
                : refuse(no_rank(peers, other));
  }
  const PeerId peer = peers[static_cast<std::size_t>(other)];
  Subgroup made;
  made.name = name_of(role, within);
  switch (role) {
    case PairRole::sender: made.members = {self, peer}; break;
    case PairRole::receiver: made.members = {peer, self}; break;
    case PairRole::partner: made.members = {std::min(self, peer), std::max(self, peer)}; break;
  }
  if (peer == self) {
    if (role != PairRole::partner)
      return refuse("a peer can't send to itself or receive from itself");
    made.members.pop_back();
  }
  made.rank = made.members.front() == self ? 0 : 1;
  return made;
}

Status ask_pair(engine::Request& request, const ViewSnapshot& view, const Subgroup* subgroup,
                PeerId self, PairRole role, Rank other) {
  const std::vector<PeerId>& peers = subgroup != nullptr ? subgroup->members : view.peers;
  const std::size_t members_most = subgroup != nullptr ? 0 : view.members_most;
  const std::string_view within = subgroup != nullptr ? std::string_view(subgroup->name) : "";
  if (role == PairRole::receiver && other == any_source) {
    if (peers.size() <= 1) {
      return members_most > 1 ? Status(Code::peer_lost, "there is no other member any more")
                              : refuse("there is no other member");
    }
    request.kind = collectives::Kind::send;
    request.name = name_of(role, within);
    request.sources = peers;
    return {};
  }
  const auto pair = pair_of(peers, members_most, self, role, other, within);
  if (!pair.ok()) return pair.status();
  pair.value().apply(request);
  request.kind = kind_of(role, pair.value());
  if (role == PairRole::receiver) request.source = other;
  return {};
}

collectives::Kind kind_of(PairRole role, const Subgroup& pair) {
  if (role != PairRole::partner) return collectives::Kind::send;
  return pair.members.size() == 1 ? collectives::Kind::all_gather : collectives::Kind::exchange;
}

}  // namespace pyccl::runtime
