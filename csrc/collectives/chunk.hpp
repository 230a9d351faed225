// How a range is shared among ranks: one chunk each, as even as whole elements allow.
#pragma once

#include "base/assert.hpp"
#include "collectives/plan.hpp"

namespace pyccl::collectives {

// Chunk `index` of `parts`. The first size % parts chunks hold one element more, so a chunk never
// shrinks when the range grows; the plans by owners rely on that.
inline Range chunk_of(Range whole, Rank parts, Rank index) {
  PYCCL_ASSERT(parts > 0 && index >= 0 && index < parts);
  const auto divisor = static_cast<std::uint64_t>(parts);
  const auto place = static_cast<std::uint64_t>(index);
  const std::uint64_t even = whole.size() / divisor;
  const std::uint64_t larger = whole.size() % divisor;
  const std::uint64_t begin = whole.begin + place * even + (place < larger ? place : larger);
  return {begin, begin + even + (place < larger ? 1 : 0)};
}

}  // namespace pyccl::collectives
