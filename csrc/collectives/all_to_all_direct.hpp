// All-to-all at once, with an amount for each pair; also send and exchange.
#pragma once

#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::collectives {

// Elements that this rank has for each rank, itself included, and gets from each; both lie one
// behind the other in its input and its result. An empty list: none for anybody.
Plan all_to_all_direct(Rank self, Rank world, const std::vector<std::uint64_t>& sends,
                       const std::vector<std::uint64_t>& receives);

}  // namespace pyccl::collectives
