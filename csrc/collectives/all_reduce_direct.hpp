// All-reduce by owners: every rank reduces a share of each block, and all links work at once.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

// `block` is in elements, the same for all ranks. `blocks_in_flight`, at least 1, is this rank's
// own choice: how many blocks it is ahead of an owner's results.
Plan all_reduce_direct(Rank self, Rank world, std::uint64_t count, std::uint64_t block,
                       int blocks_in_flight);

}  // namespace pyccl::collectives
