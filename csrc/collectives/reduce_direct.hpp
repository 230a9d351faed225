// Reduce by owners: every rank reduces a share of each block and sends it to the root.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

// As for all_reduce_direct: `block` is in elements, the same for all ranks; `blocks_in_flight`, at
// least 1, is this rank's own choice.
Plan reduce_direct(Rank self, Rank world, Rank root, std::uint64_t count, std::uint64_t block,
                   int blocks_in_flight);

}  // namespace pyccl::collectives
