// A run of one seed: faults for a while, then the turn: everything heals and the rest has to come
// together, work, and end cleanly within bounds.
#pragma once

#include <cstdint>

#include "sim/result.hpp"
#include "sim/trace.hpp"

namespace pyccl::sim {

RunResult run_protocol_seed(std::uint64_t seed, Trace::Text text);

}  // namespace pyccl::sim
