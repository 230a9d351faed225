// Which algorithm runs an operation. A pure function of what all members know alike, since they
// must choose the same one without asking each other.
#pragma once

#include <string_view>

#include "collectives/plan.hpp"
#include "pyccl.h"

namespace pyccl::collectives {

enum class Algorithm : int {
  automatic = PYCCL_ALGORITHM_AUTO,
  ring = PYCCL_ALGORITHM_RING,
  direct = PYCCL_ALGORITHM_DIRECT,
  one_shot = PYCCL_ALGORITHM_ONE_SHOT,
};

std::string_view name_of(Algorithm algorithm);

// One shot up to here: bytes that a rank sends, to all others together. A second hop costs some
// 50 us on one host and a round trip elsewhere; 32 KiB take less on any link of 1 GB/s or more.
inline constexpr std::uint64_t one_shot_bytes_max = 32 * 1024;

// The ring from here on. Until measurements separate the two, only messages so large that direct's
// fewer hops don't show any more leave the default.
inline constexpr std::uint64_t ring_bytes_min = 512ull << 20;

// What one owner reduces of one block of the direct algorithm: two of them are on the way on each
// link, so this must cover half of a link's bandwidth times its round trip.
inline constexpr std::uint64_t direct_share_bytes = 4ull << 20;

// What an owner stages in the direct algorithm at most; with many ranks it shrinks the shares.
inline constexpr std::uint64_t direct_staging_bytes_max = 64ull << 20;

struct AllReduceShape {
  Rank world = 1;
  std::uint64_t count = 0;
  std::uint64_t element_bytes = 4;
  // Sum, average or product of a 16-bit float: what is rounded again at each hop of a ring. Minimum
  // and maximum don't round.
  bool rounds_when_stored = false;
};

// A forced algorithm is obeyed, whatever it costs; `automatic` picks.
Algorithm choose_all_reduce(const AllReduceShape& shape, Algorithm forced);

// The plan of one rank. `algorithm` is what choose_all_reduce gave, so never `automatic`.
Plan make_all_reduce(Algorithm algorithm, Rank self, const AllReduceShape& shape);

// Elements of a block of the direct algorithm.
std::uint64_t direct_block(const AllReduceShape& shape);

}  // namespace pyccl::collectives
