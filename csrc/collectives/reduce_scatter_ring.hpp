// Reduce-scatter in a ring: each share's sum travels to its owner.
#pragma once

#include <vector>

#include "collectives/plan.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {

Plan reduce_scatter_ring(Rank self, const RingOrder& ring,
                         const std::vector<std::uint64_t>& shares);

}  // namespace pyccl::collectives
