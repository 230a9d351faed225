// Reduce up a binomial tree: half of the ranks are done each round.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan reduce_binomial(Rank self, Rank world, Rank root, std::uint64_t count);

}  // namespace pyccl::collectives
