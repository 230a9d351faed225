// A collective algorithm as data: what one rank sends, to whom, and what it does with what arrives.
//
// Plans are pure functions of (rank, world, counts); they know no bytes, no sockets, no element
// type. One executor runs them all, so pipelining, acknowledgement, retransmission, deadlines and
// cancelling are written once.
//
// A rank has three buffers, each with a length and coordinates of its own, in elements:
//   input    what the caller contributes; never written
//   partial  sums on their way, read by nobody but this operation
//   result   final values only; each element is written once, also what is only copied
//
// Transfers are cut into segments of one size that all ranks agree on, counted from the begin of
// each transfer, and everything below happens segment by segment: what reads a range of partial or
// result waits for those segments of it that earlier steps make, and for nothing else.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/ids.hpp"

namespace pyccl::collectives {

// Elements [begin, end) of a buffer.
struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// weighted_input is the input times the rank's own weight: what begins a chain of partial sums. It
// is made in partial, at the coordinates that the range has in input. A credit moves nothing: it
// says that its sender has folded, and so frees what the receiver may have staged there.
enum class Source : std::uint8_t { input, weighted_input, partial, result, credit };

inline bool reads_input(Source source) {
  return source == Source::input || source == Source::weighted_input;
}

inline constexpr int no_step = -1;

// In one step a rank sends at most one range to each other rank: (sender, step) names a transfer at
// its receiver, which takes as many elements, wherever it has them.
//
//   partial, result: earlier steps make all of the range.
//   input, weighted_input: the receive from `to` in step `after` must be complete before the first
//   segment leaves. That is how a plan bounds what others have to stage; no_step sends at once.
//   credit: the range is empty; leaves when all folds of step `after` are made.
struct Send {
  Rank to = 0;
  Range range;
  Source source = Source::input;
  int after = no_step;
};

// What arrives goes to result[range] as it is. An empty range takes a credit.
struct Receive {
  Rank from = 0;
  Range range;
};

// target[range] = the contributions of `order`, folded from left to right. The rank itself may
// stand in the order, for own[own_begin...] of its input or of its partial sums, which earlier
// steps make; the data of all others arrives in this step. The order is part of the plan, so a sum
// never depends on timing.
struct Fold {
  Range range;
  std::vector<Rank> order;
  bool final = true;  // true: into result, with the division of an average; false: into partial
  bool plain = true;  // true: the others send their input and this fold applies their weights;
                      // false: they send sums to which the weights have been applied
  Source own = Source::input;  // or partial
  std::uint64_t own_begin = 0;
};

// result[begin...] = input[from], bit for bit. Nothing happens where both are the same memory.
struct Copy {
  Range from;
  std::uint64_t begin = 0;
};

struct Step {
  std::vector<Send> sends;
  std::vector<Receive> receives;
  std::vector<Fold> folds;  // a rank is source of at most one fold or receive of a step
  std::vector<Copy> copies;
};

struct Plan {
  std::vector<Step> steps;
  std::uint64_t partial_count = 0;  // elements of partial
  // Partial has the coordinates of result and may lie in its memory: where a result is written, no
  // partial sum is read any more, by a send or a fold.
  bool partial_in_result = false;
  // Where input and result are one buffer, a result may be written while the input there has still
  // to be sent: sends and folds need a copy of it. False: no other rank needs it any more.
  bool overwrites_unsent = false;
};

}  // namespace pyccl::collectives
