// All-reduce in a ring: the least bytes, and each rank talks only to its two neighbours.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan all_reduce_ring(Rank self, Rank world, std::uint64_t count);

}  // namespace pyccl::collectives
