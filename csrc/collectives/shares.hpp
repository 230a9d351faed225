// Who has which part of a whole when the ranks' shares are given, one behind the other.
#pragma once

#include <cstdint>
#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::collectives {

// Where each rank's share lies in the whole.
inline std::vector<Range> places_of(const std::vector<std::uint64_t>& shares) {
  std::vector<Range> places;
  places.reserve(shares.size());
  std::uint64_t end = 0;
  for (const std::uint64_t share : shares) {
    places.push_back({end, end + share});
    end += share;
  }
  return places;
}

}  // namespace pyccl::collectives
