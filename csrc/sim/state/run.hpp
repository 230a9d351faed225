// A run of one seed of the state world: some syncs, and between them members that work, drift, join
// and load what a failed sync has left void.
#pragma once

#include <cstdint>

#include "sim/result.hpp"
#include "sim/trace.hpp"

namespace pyccl::sim {

RunResult run_state_seed(std::uint64_t seed, Trace::Text text);

}  // namespace pyccl::sim
