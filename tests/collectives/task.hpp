// What a collective is to do, said in the plainest way there is: for each element of each rank's
// result, whose input it comes from. The checker holds plans against this.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "collectives/select.hpp"

namespace pyccl::collectives {

using Counts = std::vector<std::uint64_t>;

struct Task {
  Kind kind = Kind::all_reduce;
  Rank world = 1;
  Rank root = 0;
  std::uint64_t count = 0;      // all_reduce, broadcast, reduce
  Counts shares;                // all_gather, gather, reduce_scatter, scatter
  std::vector<Counts> amounts;  // all_to_all, send, exchange: from each rank to each
};

std::uint64_t input_count(const Task&, Rank);
std::uint64_t result_count(const Task&, Rank);

// One element of a result: input[at] of rank `from`, or of all ranks, folded.
struct Origin {
  bool folded = false;
  Rank from = 0;
  std::uint64_t at = 0;
};
std::vector<Origin> origins_of(const Task&, Rank);

// In place, result[i] and input[i + shift] are one element. None: the rank does not have both, or
// nobody would want that.
std::optional<std::int64_t> in_place_shift(const Task&, Rank);

// What the rank is told of it.
Shape shape_of(const Task&, Rank, std::uint64_t element_bytes);

}  // namespace pyccl::collectives
