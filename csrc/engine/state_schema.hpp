// Names, types and shapes of a state as bytes, and what tells two such texts apart.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "engine/shared_state.hpp"

namespace pyccl::engine {

// In the order in which they stand.
Bytes encode_schema(const std::vector<Tensor>& tensors, bool strict);

// In words that name the tensors: "'b' is f64(3) at rank 2, but f32(3) at rank 0". The schemas come
// from peers: anything may stand in them.
std::string schema_difference(ByteView first, const std::string& first_place, ByteView other,
                              const std::string& other_place);

}  // namespace pyccl::engine
