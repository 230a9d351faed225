// Who sends which blocks of the elected state to whom: a plan that every member makes by itself,
// from the same standings, and so alike.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.hpp"

namespace pyccl::protocol {

// What a rank lacks, and what it can do for others.
struct Standing {
  std::vector<bool> lacks;              // by block
  bool sends = true;                    // what it does not lack
  std::vector<std::uint32_t> mb_per_s;  // of its way to each rank; 0: not known
  std::vector<bool> expects;            // of what it lacks: is under way already; or none of it is
};

struct Move {
  std::uint32_t block = 0;
  Rank from = 0;
  Rank to = 0;
  bool operator==(const Move&) const = default;
};

// A pass: nobody sends a block twice, and nobody receives more than about `bytes_max`. Those who
// have a block share the work in proportion to what their ways carry. Where many lack what few
// have, each pass doubles those who have it, so that no way carries everything for everybody.
std::vector<Move> plan_moves(std::span<const Standing> standings,
                             std::span<const std::uint32_t> block_bytes, std::uint64_t bytes_max);

// The pass in pieces in which nobody receives or sends more than `bytes_max`, or than one block.
std::vector<std::span<const Move>> cut(std::span<const Move> moves,
                                       std::span<const std::uint32_t> block_bytes,
                                       std::uint64_t bytes_max);

}  // namespace pyccl::protocol
