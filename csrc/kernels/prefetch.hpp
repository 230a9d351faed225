// Memory that is read or written from one end to the other, asked for ahead of time. Processors do
// that by themselves, but not beyond a page of 4 KiB: without this each page of what does not lie
// in the cache begins with a wait. What does lie there costs an instruction for each line of it.
#pragma once

#include "kernels/lanes.hpp"

namespace pyccl::kernels {
namespace {

// Two pages. Behind the end of an array it is the memory of others, of which nothing happens but
// that it comes into the cache.
inline constexpr std::size_t prefetch_distance = 8192;
inline constexpr std::size_t prefetch_line = 64;

// For a loop that is at `at` and goes over `bytes` in one turn.
PYCCL_INLINE void prefetch_to_read([[maybe_unused]] const void* at,
                                   [[maybe_unused]] std::size_t bytes) {
  if constexpr (vector_bytes > 0) {
    const auto* ahead = static_cast<const std::byte*>(at) + prefetch_distance;
    for (std::size_t i = 0; i < bytes; i += prefetch_line) __builtin_prefetch(ahead + i);
  }
}

PYCCL_INLINE void prefetch_to_write([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes) {
  if constexpr (vector_bytes > 0) {
    auto* ahead = static_cast<std::byte*>(at) + prefetch_distance;
    for (std::size_t i = 0; i < bytes; i += prefetch_line) __builtin_prefetch(ahead + i, 1);
  }
}

}  // namespace
}  // namespace pyccl::kernels
