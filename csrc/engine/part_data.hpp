// The bytes of one attempt at one part: what a segment looks like on the wire, and what is done
// with it. PartRun says when, and knows elements only; this knows memory.
//
// A plan's element is what one of these makes of it: one number where arrays travel as they are, a
// block of numbers where they are quantized.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "collectives/plan.hpp"
#include "transport/connection.hpp"

namespace pyccl::engine {

// What a rank contributes to one segment of a fold.
struct Contribution {
  const std::byte* staged = nullptr;  // as it came; nullptr: the own one
  double weight = 1.0;
};

struct FoldSegment {
  const collectives::Fold* fold = nullptr;
  collectives::Range range;  // of what it makes
  std::span<const Contribution> contributions;
  double divisor = 1.0;
  bool sent = false;  // a send reads what it makes

  // Where the own part of it lies in the input, or in the partial sums.
  collectives::Range own() const {
    const std::uint64_t begin = fold->own_begin + (range.begin - fold->range.begin);
    return {begin, begin + range.size()};
  }
};

class PartData {
 public:
  virtual ~PartData() = default;

  // Of one element on the wire. `partial`: of a partial sum or what begins one.
  virtual std::uint64_t wire_bytes(bool partial) const = 0;
  // Of one element where the arrays lie.
  virtual std::uint64_t memory_bytes() const = 0;

  // What a send reads; what is to be read is made, if need be. The pieces hold as many bytes as the
  // range takes on the wire, or fewer where it has been compressed.
  virtual void outgoing(collectives::Source, collectives::Range, transport::Pieces&) = 0;

  // Where a range of the result may be written as it comes, and, when all of it has come, what
  // there is to do. `first`: it has not been asked for in this attempt.
  virtual void arriving(collectives::Range, bool first, transport::MutablePieces&) = 0;
  virtual void arrived(collectives::Range) = 0;

  // Whether what arrives may be shorter than it is, since its sender has compressed it; and how to
  // make it as long again. False: it can't be read.
  virtual bool may_be_packed(bool /*partial*/) const { return false; }
  virtual bool unpack(ByteView /*packed*/, MutableByteView /*to*/) { return false; }

  // At least one contribution.
  virtual void fold(const FoldSegment&) = 0;
  // result[begin...] = input[from].
  virtual void copy(collectives::Range from, std::uint64_t begin) = 0;
};

}  // namespace pyccl::engine
