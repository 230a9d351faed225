// Gather: everybody sends its share to the root.
#pragma once

#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan gather_direct(Rank self, Rank root, const std::vector<std::uint64_t>& shares);

}  // namespace pyccl::collectives
