// See agreed_links.hpp.
#include "engine/agreed_links.hpp"

#include <algorithm>

#include "base/mark.hpp"

namespace pyccl::engine {

void AgreedLinks::install(const protocol::View& view, GroupId group) {
  const std::uint32_t former_rate = whole_.mesh_mb_per_s;
  group_ = view.group_members(group);
  ring_.clear();
  whole_ = {};
  const protocol::GroupLinks* links = view.links_of(group);
  if (links == nullptr) return;
  whole_.latency_us = links->latency_us;
  whole_.mesh_mb_per_s = links->mesh_mb_per_s;
  whole_.ring_mb_per_s = links->ring_mb_per_s;
  whole_.ring_latency_us = links->ring_latency_us;
  for (const std::uint8_t rank : links->ring) {
    whole_.ring.push_back(rank);
    ring_.push_back(group_[rank]);
  }
  if (PYCCL_MUTANT("links-of-a-former-view") && former_rate > 0) whole_.mesh_mb_per_s = former_rate;
}

const collectives::Links& AgreedLinks::among(const std::vector<PeerId>& ranks) {
  if (ranks == group_) return whole_;
  // Who is between two of them in the ring of the group takes no part, so little is known of the
  // hops that remain.
  some_ = {};
  some_.latency_us = whole_.latency_us;
  some_.mesh_mb_per_s = whole_.mesh_mb_per_s;
  for (const PeerId peer : ring_) {
    const auto found = std::ranges::find(ranks, peer);
    if (found != ranks.end()) some_.ring.push_back(static_cast<Rank>(found - ranks.begin()));
  }
  return some_;
}

}  // namespace pyccl::engine
