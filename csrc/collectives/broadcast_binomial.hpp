// Broadcast down a binomial tree: twice as many ranks have it each round.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan broadcast_binomial(Rank self, Rank world, Rank root, std::uint64_t count);

}  // namespace pyccl::collectives
