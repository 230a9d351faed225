// The codecs by definition.
#include "kernels/quantize_reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/reference.hpp"

namespace pyccl::kernels {
namespace {

constexpr float f32_max = std::numeric_limits<float>::max();

// A double holds sums, products and quotients of two f32 so finely that rounding it rounds right.
float rounded(double value) { return static_cast<float>(value); }

// Multiples of what the eight bits of a bf16 can tell apart.
double brain_unit(double value) {
  return std::ldexp(1.0, std::max(value == 0 ? -126 : std::ilogb(value), -126) - 7);
}
float brain_up(double value) {
  return rounded(std::ceil(value / brain_unit(value)) * brain_unit(value));
}
float brain_down(double value) {
  const double unit = brain_unit(value);
  const double brain_max = std::ldexp(255.0, 120);
  return rounded(std::max(std::floor(value / unit) * unit, -brain_max));
}

// The largest scale by which the largest code is finite.
double scale_max(double largest, bool brain) {
  const double infinite = std::ldexp(1.0, 128) - std::ldexp(1.0, 103);
  double scale = f32_max / largest;
  const double unit = brain ? brain_unit(scale) : brain_unit(scale) * 0x1p-16;
  scale = (std::floor(scale / unit) + 1) * unit;
  while (scale * largest >= infinite) scale -= unit;
  return scale;
}

float scale_reaching(double distance, double largest) {
  const float scale = rounded(distance / largest);
  if (rounded(static_cast<double>(scale) * largest) >= distance) return scale;
  return std::nextafter(scale, std::numeric_limits<float>::infinity());
}

struct Scales {
  float scale = 0;
  float least = 0;
  float half = 1;
};

Scales scales_of(const CodecDefinition& codec, bool brain, std::span<const float> numbers) {
  Scales scales;
  const double largest = largest_of(codec);
  if (!codec.minmax) {
    double magnitude = 0;
    for (float number : numbers) magnitude = std::max(magnitude, std::fabs(double{number}));
    scales.scale = scale_reaching(magnitude, largest);
    if (brain) scales.scale = brain_up(scales.scale);
    scales.scale = rounded(std::min(double{scales.scale}, scale_max(largest, brain)));
    return scales;
  }
  double least = numbers[0];
  double greatest = numbers[0];
  for (float number : numbers) {
    least = std::min(least, double{number});
    greatest = std::max(greatest, double{number});
  }
  if (greatest == 0) greatest = 0;  // and no -0
  scales.least = least == 0 ? 0.0f : brain ? brain_down(least) : rounded(least);
  if (std::isinf(rounded(greatest - scales.least))) scales.half = 0.5f;
  const double distance = double{rounded(rounded(greatest * scales.half) -
                                         double{rounded(double{scales.least} * scales.half)})};
  scales.scale = rounded(double{scale_reaching(distance, largest)} / scales.half);
  if (brain) scales.scale = brain_up(scales.scale);
  return scales;
}

std::uint32_t draw(const RoundingChoice& rounding, std::uint64_t number, std::size_t place) {
  std::uint64_t z = rounding.seed + 0x9E3779B97F4A7C15ull * (number + 1);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  z ^= z >> 31;
  auto h = static_cast<std::uint32_t>(z + place * 0x9E3779B9ull);
  h ^= h >> 16;
  h *= 0x7feb352du;
  h ^= h >> 15;
  h *= 0x846ca68bu;
  return h ^ h >> 16;
}

// Of a magnitude in units of the scale.
int nearest_code(const CodecDefinition& codec, double y) {
  int best = 0;
  for (int code = 1; code <= codec.code_max; ++code) {
    const double gain =
        std::fabs(y - magnitude_of(codec, best)) - std::fabs(y - magnitude_of(codec, code));
    if (gain > 0 || (gain == 0 && code % 2 == 0)) best = code;
  }
  return best;
}

int drawn_code(const CodecDefinition& codec, double y, std::uint32_t drawn) {
  int below = 0;
  while (below < codec.code_max && magnitude_of(codec, below + 1) <= y) ++below;
  if (below == codec.code_max) return below;
  const double from = magnitude_of(codec, below);
  const double fraction = (y - from) / (magnitude_of(codec, below + 1) - from);
  if (!codec.floating) return below + (std::ldexp(drawn >> 8, -24) < fraction ? 1 : 0);
  const int digits = 23 - codec.mantissa_bits;  // what f32 has beyond the code
  const double sum = std::ldexp(fraction, digits) + (drawn >> (32 - digits));
  return below + (sum >= std::ldexp(1.0, digits) ? 1 : 0);
}

void append(std::vector<std::byte>& wire, float value, bool brain) {
  std::byte bytes[sizeof(value)];
  std::memcpy(bytes, &value, sizeof(value));
  wire.insert(wire.end(), bytes + (brain ? 2 : 0), bytes + 4);
}

float decoded(const CodecDefinition& codec, const Scales& scales, int code, bool negative) {
  if (!codec.minmax) {
    const float value = rounded(magnitude_of(codec, code) * scales.scale);
    return negative && code != 0 ? -value : value;
  }
  const double half = scales.scale >= 0x1p119f ? 0.5 : 1;
  const float steps = rounded(double(code) * (scales.scale * half));
  const float sum = rounded(double{rounded(scales.least * half)} + steps);
  return rounded(std::min(double{sum}, f32_max * half) / half);
}

// In units of the scale, of one number.
float quotient(const CodecDefinition& codec, const Scales& scales, float number) {
  if (scales.scale == 0) return 0;
  if (!codec.minmax) {
    const float y = rounded(std::fabs(double{number}) / scales.scale);
    if (!codec.floating) return y;
    // Below the least normal number as many digits count as that number's sum with it has.
    const double least_normal = std::ldexp(1.0, codec.exponent_min);
    return y < least_normal ? rounded(rounded(y + least_normal) - least_normal) : y;
  }
  const double half = scales.half;
  const float least = rounded(scales.least * half);
  const float from_least = rounded(double{rounded(number * half)} - least);
  return std::max(rounded(double{from_least} / (scales.scale * half)), 0.0f);
}

ReferenceBlock nan_block(const BlockFormat& format, const CodecDefinition& codec,
                         std::size_t count) {
  const bool brain = format.scale == DataType::bf16;
  ReferenceBlock block;
  block.scale = std::numeric_limits<float>::quiet_NaN();
  append(block.wire, block.scale, brain);
  if (codec.minmax) append(block.wire, 0, brain);
  block.wire.resize(block_bytes(format));
  block.decoded.assign(count, block.scale);
  return block;
}

}  // namespace

CodecDefinition definition_of(Codec codec) {
  switch (codec) {
    case Codec::int8: return {8, false, false, 0, 0, 127};
    case Codec::int8_minmax: return {8, true, false, 0, 0, 255};
    case Codec::int4: return {4, false, false, 0, 0, 7};
    case Codec::int4_minmax: return {4, true, false, 0, 0, 15};
    case Codec::fp8_e4m3: return {8, false, true, -6, 3, 0x7e};
    case Codec::fp8_e5m2: return {8, false, true, -14, 2, 0x7b};
    case Codec::fp4_e3m0: return {4, false, true, -2, 0, 7};
    case Codec::fp4_e2m1: return {4, false, true, 0, 1, 7};
    case Codec::none: break;
  }
  return {};
}

double magnitude_of(const CodecDefinition& codec, int code) {
  if (!codec.floating) return code;
  const int exponent = code >> codec.mantissa_bits;
  const int mantissa = code & ((1 << codec.mantissa_bits) - 1);
  const int ones = exponent == 0 ? mantissa : mantissa + (1 << codec.mantissa_bits);
  return std::ldexp(ones, codec.exponent_min + std::max(exponent, 1) - 1 - codec.mantissa_bits);
}

double largest_of(const CodecDefinition& codec) { return magnitude_of(codec, codec.code_max); }

ReferenceBlock reference_block(const BlockFormat& format, const RoundingChoice& rounding,
                               std::uint64_t number, std::span<const float> numbers) {
  const CodecDefinition codec = definition_of(format.codec);
  const auto is_finite = [](float value) { return std::isfinite(value); };
  if (!std::all_of(numbers.begin(), numbers.end(), is_finite)) {
    return nan_block(format, codec, numbers.size());
  }
  const bool brain = format.scale == DataType::bf16;
  const Scales scales = scales_of(codec, brain, numbers);
  ReferenceBlock block;
  block.scale = scales.scale;
  block.least = scales.least;
  block.step =
      rounded(scales.scale * (largest_of(codec) - magnitude_of(codec, codec.code_max - 1)));
  append(block.wire, scales.scale, brain);
  if (codec.minmax) append(block.wire, scales.least, brain);
  const std::size_t header = block.wire.size();
  block.wire.resize(block_bytes(format));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const float y = quotient(codec, scales, numbers[i]);
    const bool stochastic = rounding.mode == Rounding::stochastic;
    const int code =
        stochastic ? drawn_code(codec, y, draw(rounding, number, i)) : nearest_code(codec, y);
    const bool negative = !codec.minmax && numbers[i] < 0;
    block.decoded.push_back(decoded(codec, scales, code, negative));
    const int sign = codec.floating && code != 0 ? 1 << (codec.bits - 1) : 0;
    const int field = !negative ? code : codec.floating ? code | sign : -code;
    const int shift = codec.bits == 8 || i % 2 == 0 ? 0 : 4;
    const int mask = (1 << codec.bits) - 1;
    block.wire[header + i * codec.bits / 8] |= static_cast<std::byte>((field & mask) << shift);
  }
  return block;
}

std::vector<BlockFormat> all_formats(std::uint32_t block) {
  std::vector<BlockFormat> formats;
  for (int codec = PYCCL_CODEC_NONE + 1; codec < PYCCL_CODEC_COUNT; ++codec) {
    for (const DataType scale : {DataType::f32, DataType::bf16}) {
      formats.push_back({static_cast<Codec>(codec), block, scale});
    }
  }
  return formats;
}

std::string text_of(const BlockFormat& format) {
  return std::string(name_of(format.codec)) + " in blocks of " + std::to_string(format.block) +
         " with " + std::string(name_of(format.scale)) + " scales";
}

std::vector<float> numbers_of_kind(int kind, std::size_t count, Prng& prng) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const float constant = static_cast<float>(prng.below(1000)) * 0.37f - 100.0f;
  const auto exponent = static_cast<int>(prng.below(250)) - 140;
  std::vector<float> numbers(count);
  for (float& number : numbers) {
    const double unit = static_cast<double>(prng.below(1u << 30)) * 0x1p-29 - 1;
    const auto heavy = std::ldexp(unit, -static_cast<int>(prng.below(40)));
    switch (kind) {
      case 0: number = rounded(unit); break;
      case 1: number = rounded(heavy); break;
      case 2: number = unit < 0 ? -0.0f : 0.0f; break;
      case 3: number = constant; break;
      case 4: number = rounded(unit * 0x1p-138); break;
      case 5: number = rounded(unit * f32_max); break;
      case 6: number = unit < 0 ? -f32_max : f32_max; break;
      case 7: number = rounded(std::fabs(unit) * 1e-3) + 1e3f; break;
      case 8: number = rounded(std::ldexp(unit, exponent)); break;
      case 9: number = rounded(std::ldexp(heavy, exponent)); break;
      case 10: number = static_cast<float>(static_cast<int>(prng.below(255)) - 127); break;
      case 11: number = rounded(-std::fabs(unit) * f32_max); break;
      case 12: number = rounded(unit * 0x1p-147); break;
      default: number = rounded(heavy); break;
    }
  }
  if (kind == 12) numbers[0] = -0.0f;
  if (kind == 13) numbers[prng.below(count)] = prng.chance(1, 2) ? nan : -nan;
  if (kind == 14) numbers[prng.below(count)] = prng.chance(1, 2) ? infinity : -infinity;
  return numbers;
}

}  // namespace pyccl::kernels
