// How the members of a run lie to each other: what they have measured, put together, and what
// follows from it for each group.
//
// Members measure ways that they use anyhow, so much stays unknown, and what is known is known
// roughly. Pure and without floating point; a restarted coordinator begins with what stands in the
// last view.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "protocol/messages.hpp"
#include "protocol/view.hpp"

namespace pyccl::protocol {

// Whether the coordinator should hear of it: other peers, or some value by more than a quarter.
bool differ_notably(const std::vector<MeasuredLink>& told, const std::vector<MeasuredLink>& now);

class Topology {
 public:
  // All that one peer says; in place of what it has said before.
  void learn(PeerId from, const std::vector<MeasuredLink>& links);

  template <class Gone>
  void forget(Gone gone) {
    std::erase_if(said_, [&](const auto& entry) { return gone(entry.first); });
  }

  // For the groups of a view that follows `former`.
  std::vector<GroupLinks> links_of(const View& next, const View& former) const;

 private:
  // What both ends say of a pair.
  struct Pair {
    bool known = false;
    bool near = false;  // on one host
    std::uint32_t latency_us = 0;
    std::uint32_t mb_per_s = 0;
  };

  // Of all pairs of a group, and by themselves what of them is known and crosses a wire.
  struct Pairs {
    std::size_t count = 0;
    std::vector<Pair> all;
    std::vector<std::uint32_t> latencies;
    std::vector<std::uint32_t> rates;
    Pair& at(std::size_t a, std::size_t b) { return all[a * count + b]; }
  };

  Pair pair_of(PeerId a, PeerId b) const;
  Pairs pairs_of(const std::vector<PeerId>& ranks) const;
  std::optional<GroupLinks> links_within(GroupId group, const std::vector<PeerId>& ranks,
                                         const View& former) const;

  std::map<PeerId, std::map<PeerId, MeasuredLink>> said_;
};

}  // namespace pyccl::protocol
