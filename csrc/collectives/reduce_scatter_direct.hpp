// Reduce-scatter by owners: everybody sends each owner what it is to reduce.
#pragma once

#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::collectives {

// `shares` are the ranks' parts of the whole; `block` is how much of a share is reduced at once,
// the same for all ranks. `blocks_in_flight`, at least 1, is this rank's own choice: how many
// blocks it is ahead of an owner.
Plan reduce_scatter_direct(Rank self, const std::vector<std::uint64_t>& shares, std::uint64_t block,
                           int blocks_in_flight);

}  // namespace pyccl::collectives
