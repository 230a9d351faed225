// A collective algorithm as data: what one rank sends, to whom, and what it does with what arrives.
//
// Plans are pure functions of (rank, world, count); they know no bytes, no sockets, no element
// type. One executor runs them all, so pipelining, acknowledgement, retransmission, deadlines and
// cancelling are written once.
//
// A rank has three buffers of the same length, in elements:
//   input    what the caller contributes; never written
//   partial  sums on their way, read by nobody but this operation
//   result   final values only
//
// Partial and result may share their memory: where a result is written, no send of a partial sum is
// under way any more. In place, input and result are one buffer. The ring and the direct plan write
// a result only where no other rank needs the own input any more; for plans that don't (one shot),
// the executor sends from the copy that it keeps of what a result overwrites.
//
// Transfers are cut into segments of one size that all ranks agree on, and everything below happens
// segment by segment: a segment leaves as soon as what it depends on has been done for *that*
// segment.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.hpp"

namespace pyccl::collectives {

// Elements [begin, end) of the operation.
struct Range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// weighted_input is the input times the rank's own weight: what begins a chain of partial sums.
enum class Source : std::uint8_t { input, weighted_input, partial, result };

inline bool reads_input(Source source) {
  return source == Source::input || source == Source::weighted_input;
}

inline constexpr int no_step = -1;

// In one step a rank sends at most one range to each other rank: (sender, step) names a transfer at
// its receiver.
//
// `after` names an earlier step, or the same one, of the sender's own plan:
//
//   source partial or result: the fold or receive of that step made this range; segment k leaves
//   when it is made.
//
//   source input: the receive from `to` in that step must be complete before the first segment
//   leaves. That is how a plan bounds what an owner has to stage; no_step sends at once.
struct Send {
  Rank to = 0;
  Range range;
  Source source = Source::input;
  int after = no_step;
};

// What arrives goes to result[range] as it is.
struct Receive {
  Rank from = 0;
  Range range;
};

// target[range] = the contributions of `order`, folded from left to right. Own input stands in the
// order as the rank itself; the data of all others arrives in this step. The order is part of the
// plan, so a sum never depends on timing.
struct Fold {
  Range range;
  std::vector<Rank> order;
  bool final = true;  // true: into result, with the division of an average; false: into partial
  bool plain = true;  // true: the others send their input and this fold applies their weights;
                      // false: they send sums to which the weights have been applied
};

struct Step {
  std::vector<Send> sends;
  std::vector<Receive> receives;
  std::vector<Fold> folds;  // a rank is source of at most one fold or receive of a step
};

using Plan = std::vector<Step>;

}  // namespace pyccl::collectives
