// Orders of ranks: as they are numbered, beginning behind one of them, and round the ring.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

#include "base/assert.hpp"
#include "base/ids.hpp"

namespace pyccl::collectives {

inline std::vector<Rank> all_ranks(Rank world) {
  std::vector<Rank> ranks;
  for (Rank rank = 0; rank < world; ++rank) ranks.push_back(rank);
  return ranks;
}

// All but `self`, starting behind it, so that not all ranks begin with the same one.
inline std::vector<Rank> others_behind(Rank self, Rank world) {
  std::vector<Rank> ranks;
  for (Rank distance = 1; distance < world; ++distance) ranks.push_back((self + distance) % world);
  return ranks;
}

// Places on the ring, numbered from 0; any number means a place, for the ring has no end.
class RingOrder {
 public:
  // `order` is a permutation of the ranks; empty: as they are numbered.
  explicit RingOrder(Rank world, std::vector<Rank> order = {}) : ranks_(std::move(order)) {
    PYCCL_ASSERT(world > 0);
    if (ranks_.empty()) ranks_ = all_ranks(world);
    PYCCL_ASSERT(ranks_.size() == static_cast<std::size_t>(world));
    places_.resize(ranks_.size(), -1);
    for (Rank place = 0; place < world; ++place) {
      const Rank rank = at(place);
      PYCCL_ASSERT(rank >= 0 && rank < world && places_[static_cast<std::size_t>(rank)] == -1);
      places_[static_cast<std::size_t>(rank)] = place;
    }
  }

  Rank world() const { return static_cast<Rank>(ranks_.size()); }
  Rank at(Rank place) const {
    const Rank rest = place % world();
    return ranks_[static_cast<std::size_t>(rest < 0 ? rest + world() : rest)];
  }
  Rank place_of(Rank rank) const {
    PYCCL_ASSERT(rank >= 0 && rank < world());
    return places_[static_cast<std::size_t>(rank)];
  }
  // How many hops `rank` is behind `root`.
  Rank distance(Rank root, Rank rank) const {
    return (place_of(rank) - place_of(root) + world()) % world();
  }

 private:
  std::vector<Rank> ranks_;   // by place
  std::vector<Rank> places_;  // by rank
};

}  // namespace pyccl::collectives
