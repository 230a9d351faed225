// 2-opt: of two hops a-b and c-d become a-c and b-d, with what lies between turned round.
#include "protocol/ring_order.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace pyccl::protocol {
namespace {

constexpr int rounds_max = 64;  // each goes over all pairs of hops

std::uint64_t cost_of(const PairCosts& costs, const std::vector<std::size_t>& ring) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < ring.size(); ++i) {
    sum += costs.at(ring[i], ring[(i + 1) % ring.size()]);
  }
  return sum;
}

// One round; whether it has helped.
bool improve(const PairCosts& costs, std::vector<std::size_t>& ring) {
  const std::size_t size = ring.size();
  bool better = false;
  for (std::size_t i = 0; i + 2 < size; ++i) {
    for (std::size_t j = i + 2; j < size; ++j) {
      const std::size_t behind = (j + 1) % size;
      if (behind == i) continue;  // the two hops are neighbours
      const std::uint64_t before = costs.at(ring[i], ring[i + 1]) + costs.at(ring[j], ring[behind]);
      const std::uint64_t after = costs.at(ring[i], ring[j]) + costs.at(ring[i + 1], ring[behind]);
      if (after >= before) continue;
      std::reverse(ring.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                   ring.begin() + static_cast<std::ptrdiff_t>(j) + 1);
      better = true;
    }
  }
  return better;
}

}  // namespace

std::vector<std::size_t> cheaper_ring(const PairCosts& costs, std::vector<std::size_t> begin) {
  PYCCL_ASSERT(begin.size() == costs.places());
  std::vector<std::size_t> ring = begin;
  for (int round = 0; round < rounds_max && improve(costs, ring); ++round) {
  }
  const std::uint64_t former = cost_of(costs, begin);
  return cost_of(costs, ring) <= former - former / 4 ? ring : begin;
}

}  // namespace pyccl::protocol
