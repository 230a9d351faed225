// All-reduce by recursive doubling: everybody knows the sum of twice as many ranks each round.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan all_reduce_recursive_doubling(Rank self, Rank world, std::uint64_t count);

}  // namespace pyccl::collectives
