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

// What one owner reduces of one block of the direct algorithm.
inline constexpr std::uint64_t direct_share_bytes = 512ull << 10;

// What an owner stages in the direct algorithm at most; with many ranks it shrinks the shares.
inline constexpr std::uint64_t direct_staging_bytes_max = 32ull << 20;

// Where the other ranks are, as one rank sees it. It paces what that rank sends and nothing else,
// so ranks may differ. On one host little may be on its way, for that stays in the cache: 256 MiB
// among 4 ranks take a fifth less time with 1 MiB per link than with 8. A network's bandwidth times
// its round trip wants to be covered.
enum class Reach { same_host, network };
inline constexpr std::uint64_t direct_window_bytes_same_host = 1ull << 20;
inline constexpr std::uint64_t direct_window_bytes_network = 8ull << 20;

struct AllReduceShape {
  Rank world = 1;
  std::uint64_t count = 0;
  std::uint64_t element_bytes = 4;
};

// A forced algorithm is obeyed, whatever it costs; `automatic` picks one shot or direct. The ring
// is never picked: among 4 ranks on one host it takes a quarter more time at 256 and 512 MiB,
// between hosts it has more hops and uses fewer links.
Algorithm choose_all_reduce(const AllReduceShape& shape, Algorithm forced);

// The plan of one rank. `algorithm` is what choose_all_reduce gave, so never `automatic`.
Plan make_all_reduce(Algorithm algorithm, Rank self, const AllReduceShape& shape, Reach reach);

// Elements of a block of the direct algorithm, and how many blocks may be under way to an owner.
std::uint64_t direct_block(const AllReduceShape& shape);
int direct_blocks_in_flight(const AllReduceShape& shape, Reach reach);

}  // namespace pyccl::collectives
