// All-gather in a ring: each rank talks to its two neighbours only.
#pragma once

#include <vector>

#include "collectives/plan.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {

Plan all_gather_ring(Rank self, const RingOrder& ring, const std::vector<std::uint64_t>& shares);

}  // namespace pyccl::collectives
