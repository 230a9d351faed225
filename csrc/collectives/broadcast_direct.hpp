// Broadcast at once: the root sends to everybody.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan broadcast_direct(Rank self, Rank world, Rank root, std::uint64_t count);

}  // namespace pyccl::collectives
