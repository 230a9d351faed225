// All-reduce for small messages: everybody sends everything to everybody, once.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan all_reduce_one_shot(Rank self, Rank world, std::uint64_t count);

}  // namespace pyccl::collectives
