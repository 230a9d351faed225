// Numbers in fewer bits, block by block: a scale for each block, and a short code for each number.
//
// A number x of a block becomes a code c, which stands for the value v(c) times the block's scale s
// (of the min-max codecs: plus the block's least number). With m the largest magnitude of the block
// and r the largest value of a code, s = m / r, so the largest number keeps its magnitude.
//
//   codec        values of the codes                                    |x - decoded| is at most
//   int8         -127..127                                              s/2
//   int8_minmax  0..255 steps of s = (max - min) / 255, from min up     s/2
//   int4         -7..7                                                  s/2
//   int4_minmax  0..15 steps of s = (max - min) / 15, from min up       s/2
//   fp8_e4m3     to 448, 3 bits of mantissa, least step 2^-9            max(|x| 2^-4, s 2^-10)
//   fp8_e5m2     to 57344, 2 bits of mantissa, least step 2^-16         max(|x| 2^-3, s 2^-17)
//   fp4_e3m0     0, 1/4, 1/2, 1, 2, 4, 8, 16 and their negatives        max(|x|/3, s/8)
//   fp4_e2m1     0, 1/2, 1, 3/2, 2, 3, 4, 6 and their negatives         max(|x|/5, s/4)
//
// Stochastic rounding takes one of the two neighbours, so it may be off by twice as much (e3m0: by
// |x|, e2m1: by |x|/2), and is right on average; a number that is a code stays. What it draws is a
// function of (seed, block, place in the block) alone: the same call gives the same bytes.
//
// Scales are computed in f32 and rounded up where they can't be exact, so that no number lies
// beyond the codes; a bf16 scale may be larger by 2^-7 and its step with it. A scale is at least
// 2^-149 (2^-133 in bf16), the step of subnormal numbers, unless the block is all zero (of min-max:
// all the same, and of the scale's type); then it is 0, and the block comes back exactly. It is at
// most what keeps every decoded number finite.
//
// A block with a NaN or an infinity has NaN as its scale, and comes back as NaN in all its places,
// as does a received block whose scale or least number is infinite or NaN: what is no number never
// turns into one. -0 comes back as +0.
//
// On the wire a block is its scale (f32 or bf16, little endian), of min-max codecs then the least
// number in the same type (rounded down to it), and the codes: 8 bits each, or two to a byte with
// the first in the low half. int4 is in two's complement; fp8 as OCP defines it, without its NaN;
// fp4 has its sign in the highest bit, and zero has none. A block that is not full is as long as a
// full one, with codes of 0.
//
// Every target equals "scalar" bit for bit, as with folds (kernels.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.hpp"
#include "kernels/kernels.hpp"

namespace pyccl::kernels {

enum class Codec : std::uint8_t {
  none = PYCCL_CODEC_NONE,
  int8 = PYCCL_CODEC_INT8,
  int8_minmax = PYCCL_CODEC_INT8_MINMAX,
  int4 = PYCCL_CODEC_INT4,
  int4_minmax = PYCCL_CODEC_INT4_MINMAX,
  fp8_e4m3 = PYCCL_CODEC_FP8_E4M3,
  fp8_e5m2 = PYCCL_CODEC_FP8_E5M2,
  fp4_e3m0 = PYCCL_CODEC_FP4_E3M0,
  fp4_e2m1 = PYCCL_CODEC_FP4_E2M1,
};

enum class Rounding : std::uint8_t {
  nearest = PYCCL_ROUNDING_NEAREST,
  stochastic = PYCCL_ROUNDING_STOCHASTIC,
};

inline constexpr std::uint32_t block_elements_min = 32;
inline constexpr std::uint32_t block_elements_max = 1024;

// What both sides must know to read each other.
struct BlockFormat {
  Codec codec = Codec::int8;
  std::uint32_t block = 256;       // elements; a multiple of 32
  DataType scale = DataType::f32;  // or bf16
  bool operator==(const BlockFormat&) const = default;
};

// Ok, or what is wrong with it.
Status check(const BlockFormat&);

std::string_view name_of(Codec);
std::string_view name_of(Rounding);

// Of one block on the wire.
std::size_t block_bytes(const BlockFormat&);

// How the codes of one call to encode() are chosen.
struct RoundingChoice {
  Rounding mode = Rounding::nearest;
  std::uint64_t seed = 0;
  std::uint64_t first_block = 0;  // the number of the first block, for what is drawn
};

// All lengths are in elements; the last block of each may be short. `dtype` is f32, f64, f16 or
// bf16: f64 is rounded to f32 first, and what is decoded is rounded from f32 to nearest even.
// Beyond the range of dtype: infinity. Each returns the largest step of its blocks, the distance of
// those neighbouring values that lie farthest apart: s for the integers, 32 s for e4m3, 8192 s for
// e5m2, 8 s for e3m0, 2 s for e2m1. NaN blocks have none, and without any it is 0.
struct EncodeArguments {
  const std::byte* source = nullptr;
  DataType dtype = DataType::f32;
  std::size_t count = 0;
  std::byte* destination = nullptr;  // as many blocks as it takes; overlaps nothing else
  BlockFormat format;
  RoundingChoice rounding;
  // Where the same numbers go as decode() would make them of the blocks, or nullptr; of dtype
  // `rounded_dtype`. May be the source if the types are the same.
  std::byte* rounded = nullptr;
  DataType rounded_dtype = DataType::f32;
};
float encode(const EncodeArguments&, const Target& = best_target());

struct DecodeArguments {
  const std::byte* source = nullptr;
  BlockFormat format;
  std::size_t count = 0;
  std::byte* destination = nullptr;
  DataType dtype = DataType::f32;
};
float decode(const DecodeArguments&, const Target& = best_target());

// sum[i] += weight * value[i], rounded after each, or without the first addition: sum[i] = ...
struct AccumulateArguments {
  const std::byte* source = nullptr;
  BlockFormat format;
  std::size_t count = 0;
  float* sum = nullptr;
  float weight = 1.0f;
  bool first = false;
};
float accumulate(const AccumulateArguments&, const Target& = best_target());

// Between f32 and `dtype`, as above; of any length and alignment. A NaN becomes the canonical one.
void widen(const std::byte* source, DataType dtype, std::size_t count, float* destination,
           const Target& = best_target());
void narrow(const float* source, std::size_t count, std::byte* destination, DataType dtype,
            const Target& = best_target());

}  // namespace pyccl::kernels
