// What the operations of a sync do to bytes, in the plainest way.
#pragma once

#include <vector>

#include "engine/request.hpp"

namespace pyccl::sim {

// In rank order; they fit together.
void move_bytes(const std::vector<const engine::Request*>& requests);

}  // namespace pyccl::sim
