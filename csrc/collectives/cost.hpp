// How long an algorithm will take: the model behind the choice.
#pragma once

#include "collectives/select.hpp"

namespace pyccl::collectives {

// What stands for a link that has not been measured: one between two processes of one host.
inline constexpr std::uint64_t host_latency_us = 25;
inline constexpr std::uint64_t host_mb_per_s = 3000;

// What a transfer costs the rank that sends it, beside its bytes.
inline constexpr std::uint64_t transfer_us = 2;

// How fast a rank handles bytes: sends, receives, and reads and writes them in folds.
inline constexpr std::uint64_t handling_mb_per_s = 6000;

// What has to come before it can be handed on, at most: a segment of the usual size.
inline constexpr std::uint64_t handed_on_bytes = 256ull << 10;

// One shot up to here: bytes that a rank sends, to all others together. A second hop costs some
// 50 us on one host, and 32 KiB take less on any link of 1 GB/s or more. Where a hop costs more so
// may the bytes, but not without end, since everybody stages as many.
inline constexpr std::uint64_t one_shot_bytes_max = 32 * 1024;
inline constexpr std::uint64_t one_shot_bytes_max_far = 1024 * 1024;

// In microseconds; the largest number there is stands for "never". `algorithm` is one that `kind`
// offers.
std::uint64_t estimated_us(Kind kind, Algorithm algorithm, const Shape& shape, const Links& links);

}  // namespace pyccl::collectives
