// The folds again, slowly and by other means: elements as bits, values decoded by their definition
// and computed in double, results rounded by arithmetic. What the kernels must equal.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/prng.hpp"
#include "kernels/kernels.hpp"

namespace pyccl::kernels {

// A binary floating-point type by its two widths.
struct FloatFormat {
  int exponent_bits;
  int mantissa_bits;  // those that are stored

  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  std::uint64_t sign() const { return 1ull << (exponent_bits + mantissa_bits); }
  std::uint64_t infinity() const { return ((1ull << exponent_bits) - 1) << mantissa_bits; }
  std::uint64_t quiet_nan() const { return infinity() | 1ull << (mantissa_bits - 1); }
  bool is_nan(std::uint64_t bits) const { return (bits & ~sign()) > infinity(); }
};

FloatFormat format_of(DataType);

// Exact. NaN gives a NaN.
double decode(FloatFormat, std::uint64_t bits);

// To nearest, ties to even. NaN gives the canonical one.
std::uint64_t encode(FloatFormat, double value);

// The bits of one element of the result.
std::uint64_t reference(DataType, ReduceOp, std::span<const std::uint64_t> sources,
                        std::span<const double> weights, double divisor);

// Every pair of a type and an operation that is not refused.
struct Pair {
  DataType type;
  ReduceOp op;
};
std::vector<Pair> all_pairs();

// Elements of which three in four are numbers of moderate size, so that a fold of several has
// something to round; the others are anything, and mostly what goes wrong: NaN of both kinds,
// infinities, zeros of both signs, subnormals, extremes. Equal places of several sources are of
// equal temper.
std::vector<std::byte> random_elements(DataType, std::size_t count, Prng&);

std::uint64_t element_at(DataType, const std::byte* elements, std::size_t index);

}  // namespace pyccl::kernels
