// The shapes on which every plan is proven.
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "base/prng.hpp"
#include "collectives/plan_check.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {

inline constexpr Rank world_max = 24;
inline constexpr std::uint64_t some_counts[] = {0, 1, 2, 7, 64, 97, 1000};

inline std::vector<Plan> plans_of(Rank world, const std::function<Plan(Rank)>& plan_of) {
  std::vector<Plan> plans;
  for (Rank self = 0; self < world; ++self) plans.push_back(plan_of(self));
  return plans;
}

inline CheckOptions options_of(Rank world, std::uint64_t count) {
  const std::uint64_t seed = static_cast<std::uint64_t>(world) * 1009 + count;
  return {count > 500 ? 7ull : 4ull, seed, true};
}

// Elements that rank `self` owns of a whole, by a way of its own: ceil((size - self) / world).
inline std::uint64_t owned(std::uint64_t size, Rank world, Rank self) {
  const auto place = static_cast<std::uint64_t>(self);
  const auto ranks = static_cast<std::uint64_t>(world);
  return size > place ? (size - place + ranks - 1) / ranks : 0;
}

// All of a small world, else the first, the last and two others.
inline std::vector<Rank> roots_of(Rank world) {
  if (world <= 9) return all_ranks(world);
  return {0, 1, world / 2, world - 1};
}

// Even shares; uneven ones, some of them empty; one rank has all.
inline std::vector<Counts> shares_of(Rank world, std::uint64_t count) {
  const auto ranks = static_cast<std::size_t>(world);
  Counts even(ranks);
  for (Rank rank = 0; rank < world; ++rank) {
    even[static_cast<std::size_t>(rank)] = owned(count, world, rank);
  }
  Prng random(ranks * 31 + count);
  Counts uneven(ranks);
  for (std::uint64_t left = count; left > 0;) {
    const std::uint64_t part = random.between(1, left);
    uneven[random.below(ranks)] += part;
    left -= part;
  }
  Counts lone(ranks);
  lone[ranks / 2] = count;
  return {even, uneven, lone};
}

inline std::uint64_t sum_of(const Counts& counts) {
  std::uint64_t sum = 0;
  for (const std::uint64_t count : counts) sum += count;
  return sum;
}

// A ring in another order than that of the ranks.
inline RingOrder shuffled_ring(Rank world, std::uint64_t seed) {
  std::vector<Rank> order = all_ranks(world);
  Prng random(seed);
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random.below(i)]);
  return RingOrder(world, order);
}

inline Task all_reduce_task(Rank world, std::uint64_t count) {
  return {Kind::all_reduce, world, 0, count, {}, {}};
}
inline Task rooted_task(Kind kind, Rank world, Rank root, std::uint64_t count) {
  return {kind, world, root, count, {}, {}};
}
inline Task shared_task(Kind kind, const Counts& shares, Rank root = 0) {
  return {kind, static_cast<Rank>(shares.size()), root, 0, shares, {}};
}

}  // namespace pyccl::collectives
