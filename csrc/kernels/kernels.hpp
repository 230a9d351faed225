// What is done to bytes: folding the contributions of several ranks into one. Bytes in, bytes out;
// no allocation, no thread, no state. One body per kernel, compiled per instruction set; every
// target equals "scalar" bit for bit, so ranks on unlike processors agree.
//
// For that to hold, what processors are free to choose is fixed here:
// - A result that is not a number is the type's quiet NaN with sign and payload clear, whatever NaN
//   caused it and whether it came in or arose (a single source is folded too, so it is no mere
//   copy).
// - min and max give NaN if any source holds one, and order -0 below +0.
// - Floating point rounds to nearest even and keeps subnormals, also when the calling thread has
//   switched to another mode; its mode and flags are restored.
// - Sums and products of integers wrap around.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/digest.hpp"
#include "base/status.hpp"
#include "pyccl.h"

namespace pyccl::kernels {

enum class DataType : std::uint8_t {
  f32 = PYCCL_F32,
  f64 = PYCCL_F64,
  f16 = PYCCL_F16,
  bf16 = PYCCL_BF16,
  i8 = PYCCL_I8,
  i16 = PYCCL_I16,
  i32 = PYCCL_I32,
  i64 = PYCCL_I64,
  u8 = PYCCL_U8,
  u16 = PYCCL_U16,
  u32 = PYCCL_U32,
  u64 = PYCCL_U64,
};

enum class ReduceOp : std::uint8_t {
  sum = PYCCL_SUM,
  avg = PYCCL_AVG,
  prod = PYCCL_PROD,
  min = PYCCL_MIN,
  max = PYCCL_MAX,
  band = PYCCL_BAND,
  bor = PYCCL_BOR,
  bxor = PYCCL_BXOR,
};

// destination[i] = (w0*s0[i] op w1*s1[i] op ...) / divisor, folded from left to right in the
// accumulator's type (f32 for f16 and bf16, else the type itself), rounded to the type once at the
// end. Weights and divisor are rounded to the accumulator's type first. A weight of 0 leaves its
// source out, so that a rank that does not contribute spoils nothing by an infinity or NaN; without
// any contribution the fold is +0. Only sum and avg of floating point take weights and divisors but
// 1.
struct FoldArguments {
  std::byte* destination = nullptr;           // may be any of the sources, or overlap none of them
  std::span<const std::byte* const> sources;  // at least one; any alignment
  std::span<const double> weights;            // one per source; empty: all one
  double divisor = 1.0;                       // 1: no division
  std::size_t count = 0;                      // elements
};

using FoldFunction = void (*)(const FoldArguments&);

using DigestFunction = Digest (*)(const std::byte*, std::size_t);

struct QuantizeBodies;  // quantize_call.hpp

// One instruction set's kernels.
struct Target {
  std::string_view name;                                    // "scalar", "avx2", "avx512", "neon"
  FoldFunction fold[PYCCL_DTYPE_COUNT][PYCCL_REDOP_COUNT];  // nullptr where the pair is refused
  const QuantizeBodies* quantize;                           // what quantize.hpp calls
  DigestFunction digest;                                    // and digest.hpp
};

// All targets that this processor can run, the plainest first. The last one is the one to use.
std::span<const Target* const> targets();
const Target& best_target();

std::size_t size_of(DataType);
std::string_view name_of(DataType);
std::string_view name_of(ReduceOp);
bool is_floating(DataType);

// Why the pair can't be reduced, or ok: avg of integers, bit operations of floating point, values
// out of range.
Status check_pair(DataType, ReduceOp);

}  // namespace pyccl::kernels
