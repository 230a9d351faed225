// xxHash as the instruction set of this object file has it; what a target_*.cpp includes.
#pragma once

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "kernels/kernels.hpp"

namespace pyccl::kernels {
namespace {

Digest digest(const std::byte* bytes, std::size_t size) {
  const XXH128_hash_t hash = XXH3_128bits(bytes, size);
  return {hash.high64, hash.low64};
}

}  // namespace
}  // namespace pyccl::kernels
