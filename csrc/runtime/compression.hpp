// Whether to compress what a peer sends of its state: measured, by what its processor makes of some
// of its blocks, and by what its links carry.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/state_sync.hpp"

namespace pyccl::runtime {

// `mb_per_s`: of the ways to all members, as engine::StateSync wants it. Of those to the receivers
// the fastest counts; where none is known they count as slow, and where one of them is within a
// host nothing is compressed, since all would be.
bool compression_pays(const engine::StateSync::Samples& samples,
                      const std::vector<std::uint32_t>& mb_per_s);

}  // namespace pyccl::runtime
