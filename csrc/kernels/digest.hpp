// What tells one block of shared state from another: XXH3-128 with seed 0, the same on every
// processor. It finds accidents, not attacks: who wants to can make two blocks of one digest.
#pragma once

#include "base/bytes.hpp"
#include "base/digest.hpp"

namespace pyccl::kernels {

Digest digest_of(ByteView bytes);

}  // namespace pyccl::kernels
