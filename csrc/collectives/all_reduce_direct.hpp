// All-reduce by owners: every rank reduces a share of each block, and all links work at once.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

// `block` bounds, in elements, what is on its way to the owners: see the staging bound in the
// source.
Plan all_reduce_direct(Rank self, Rank world, std::uint64_t count, std::uint64_t block);

}  // namespace pyccl::collectives
