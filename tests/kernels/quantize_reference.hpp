// The codecs again, slowly and by other means: every operation in double and rounded to f32, values
// of codes by their definition, and the code of a number by a search over all of them. What the
// kernels must equal.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "kernels/quantize.hpp"

namespace pyccl::kernels {

// What a codec is, from the table in quantize.hpp.
struct CodecDefinition {
  int bits;
  bool minmax;
  bool floating;
  int exponent_min;   // of floating point: of the least normal number
  int mantissa_bits;  // of floating point
  int code_max;       // by magnitude: the code of the largest value
};

CodecDefinition definition_of(Codec);

// Of a code without its sign, in units of the scale.
double magnitude_of(const CodecDefinition&, int code);

// The largest one.
double largest_of(const CodecDefinition&);

struct ReferenceBlock {
  std::vector<std::byte> wire;
  std::vector<float> decoded;
  float scale = 0;
  float least = 0;
  float step = 0;  // as encode() returns it
};

ReferenceBlock reference_block(const BlockFormat&, const RoundingChoice&, std::uint64_t number,
                               std::span<const float> numbers);

// All formats with this block size, and what to call one.
std::vector<BlockFormat> all_formats(std::uint32_t block);
std::string text_of(const BlockFormat&);

// Numbers of each kind that a scale or a code could go wrong with.
inline constexpr int number_kinds = 15;
std::vector<float> numbers_of_kind(int kind, std::size_t count, Prng&);

}  // namespace pyccl::kernels
