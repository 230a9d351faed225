// Scatter: the root sends everybody its share.
#pragma once

#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan scatter_direct(Rank self, Rank root, const std::vector<std::uint64_t>& shares);

}  // namespace pyccl::collectives
