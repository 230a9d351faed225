// How much a plan by owners lets be under way: the size of its blocks, the same for all ranks, and
// how many of them a rank is ahead of an owner.
#pragma once

#include "collectives/select.hpp"

namespace pyccl::collectives {

// What an owner reduces of one block.
inline constexpr std::uint64_t direct_share_bytes = 512ull << 10;

// What an owner stages at most; with many ranks it shrinks the shares.
inline constexpr std::uint64_t direct_staging_bytes_max = 32ull << 20;

// What a rank has under way to one owner, by where the others are (Reach).
inline constexpr std::uint64_t direct_window_bytes_same_host = 1ull << 20;
inline constexpr std::uint64_t direct_window_bytes_network = 8ull << 20;

// Elements of an owner's part of a block, where it owns `owned` in all.
std::uint64_t direct_share(Rank world, std::uint64_t element_bytes, std::uint64_t owned);

// Blocks that may be under way to an owner, for shares of so many elements.
int direct_blocks_in_flight(Rank world, std::uint64_t element_bytes, std::uint64_t share,
                            Reach reach);

}  // namespace pyccl::collectives
