// The frame around every fold: checks its arguments, fixes the floating-point mode, runs the body.
//
// It is compiled once, for the plainest processor, and the bodies see nothing but this plain
// struct. A body's file is compiled for a newer instruction set, and an inline function from a
// shared header (an assertion, a method of std::span) that is emitted there could replace, when
// linking, the copy that older processors run.
#pragma once

#include <cstddef>

#include "kernels/kernels.hpp"

namespace pyccl::kernels {

// A fold that passed its checks.
struct FoldCall {
  std::byte* destination;
  const std::byte* const* sources;
  std::size_t source_count;
  const double* weights;  // nullptr: all one
  double divisor;         // 1: no division
  bool exact_reciprocal;  // the divisor is a power of two: a product gives the same bits, sooner
  std::size_t count;      // elements
};

using FoldBody = void (*)(const FoldCall&);

struct FoldBodies {
  FoldBody plain;
  FoldBody weighted;  // nullptr: the operation takes neither weights nor a divisor
  bool floating;
};

void run_fold(const FoldArguments&, const FoldBodies&);

}  // namespace pyccl::kernels
