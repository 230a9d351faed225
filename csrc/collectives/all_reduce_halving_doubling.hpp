// All-reduce by recursive halving and doubling: few hops and few bytes.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan all_reduce_halving_doubling(Rank self, Rank world, std::uint64_t count);

}  // namespace pyccl::collectives
