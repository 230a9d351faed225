// Whether to compress what a peer sends of its state: measured, by what its processor makes of some
// of its blocks, and by what its links carry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/shared_state.hpp"

namespace pyccl::runtime {

// `mb_per_s`: of the ways to all members, as engine::StateSync wants it. Where none is known they
// count as slow; where one is within a host nothing is compressed, since all would be.
bool compression_pays(const engine::SharedState& state, const std::vector<std::size_t>& blocks,
                      const std::vector<std::uint32_t>& mb_per_s);

}  // namespace pyccl::runtime
