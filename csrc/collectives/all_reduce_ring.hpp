// All-reduce in a ring: each rank talks to its two neighbours only.
#pragma once

#include "collectives/plan.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {

Plan all_reduce_ring(Rank self, const RingOrder& ring, std::uint64_t count);

}  // namespace pyccl::collectives
