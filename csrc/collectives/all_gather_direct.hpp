// All-gather at once: everybody sends its share to all others.
#pragma once

#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan all_gather_direct(Rank self, const std::vector<std::uint64_t>& shares);

}  // namespace pyccl::collectives
