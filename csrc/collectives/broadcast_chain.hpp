// Broadcast along the ring: from each rank to the next.
#pragma once

#include "collectives/plan.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {

Plan broadcast_chain(Rank self, const RingOrder& ring, Rank root, std::uint64_t count);

}  // namespace pyccl::collectives
