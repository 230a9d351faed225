// The binomial tree: who is whose parent.
//
// Its nodes are numbered from the root, 0. A node's parent has its number without the lowest bit
// that is set; so node v with h zeros at the end has the children v + 1, v + 2, v + 4 and so on to
// v + 2^(h-1), as far as there are such nodes. h is its height; that of the root is the least that
// reaches all nodes.
#pragma once

#include <bit>
#include <vector>

#include "base/assert.hpp"
#include "base/ids.hpp"

namespace pyccl::collectives {

class BinomialTree {
 public:
  BinomialTree(Rank world, Rank root) : world_(world), root_(root) {
    PYCCL_ASSERT(world > 0 && root >= 0 && root < world);
  }

  int rounds() const { return std::bit_width(static_cast<std::uint32_t>(world_ - 1)); }
  Rank node_of(Rank rank) const { return (rank - root_ + world_) % world_; }
  Rank rank_of(Rank node) const { return (node + root_) % world_; }

  // How many children a node has at most; its height if they are all there.
  int height(Rank node) const {
    return node == 0 ? rounds() : std::countr_zero(static_cast<std::uint32_t>(node));
  }
  Rank parent(Rank node) const {
    PYCCL_ASSERT(node > 0);
    return node & (node - 1);
  }
  // The nearest one first, which has the fewest nodes below it.
  std::vector<Rank> children(Rank node) const {
    std::vector<Rank> nodes;
    for (int bit = 0; bit < height(node); ++bit) {
      const Rank child = node + (Rank{1} << bit);
      if (child < world_) nodes.push_back(child);
    }
    return nodes;
  }

 private:
  Rank world_;
  Rank root_;
};

}  // namespace pyccl::collectives
