// What the codes of each codec are worth, and which one a number becomes: numbers in units of the
// block's scale here, so that blocks are no matter.
//
// A codec has encode(), from y (at most `largest`, but for rounding) and what is drawn to the code,
// and value(), from the code back to y. `step` is the distance of the two neighbouring values that
// lie farthest apart.
#pragma once

#include "kernels/quantize_pack.hpp"

namespace pyccl::kernels {
namespace {

template <class V>
PYCCL_INLINE V smaller(V a, V b) {
  return a < b ? a : b;
}

template <class V>
PYCCL_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}

// Ties to even, as the floating-point mode says.
PYCCL_INLINE Ints nearest_integer(Floats y) {
#if PYCCL_VECTOR_BYTES == 64
  return bits_as<Ints>(_mm512_maskz_cvtps_epi32(all_lanes, bits_as<__m512>(y)));
#elif PYCCL_VECTOR_BYTES == 32
  return bits_as<Ints>(_mm256_cvtps_epi32(bits_as<__m256>(y)));
#else
  // |y| < 2^22: added to 1.5 * 2^23 its fraction has no place and is rounded away.
  constexpr float magic = 0x1.8p23f;
  return bits_as<Ints>(y + magic) - bits_as<std::int32_t>(magic);
#endif
}

// Up, away from zero, as often as the fraction says. A y that is an integer stays.
PYCCL_INLINE Ints drawn_integer(Floats magnitude, Words draw) {
  const Ints below = converted<Ints>(magnitude);
  const Floats fraction = magnitude - converted<Floats>(below);
  const Floats chance = converted<Floats>(bits_as<Ints>(draw >> 8)) * 0x1p-24f;
  return chance < fraction ? below + 1 : below;
}

template <int bits_>
struct SymmetricInteger {
  static constexpr int bits = bits_;
  static constexpr bool minmax = false;
  static constexpr bool is_signed = true;
  static constexpr int code_max = (1 << (bits - 1)) - 1;
  static constexpr float largest = code_max;
  static constexpr float step = 1;

  template <bool stochastic>
  static PYCCL_INLINE Words encode(Floats y, Words draw) {
    // A scale that is capped leaves y beyond the largest code by less than half a step.
    if constexpr (!stochastic) return bits_as<Words>(nearest_integer(y));
    const Words word = bits_as<Words>(y);
    const Ints integer = drawn_integer(bits_as<Floats>(word & 0x7fffffffu), draw);
    const Ints magnitude = integer < code_max ? integer : Ints{} + code_max;
    const Ints sign = bits_as<Ints>(word) >> 31;
    return bits_as<Words>((magnitude ^ sign) - sign);
  }

  static PYCCL_INLINE Floats value(Words code) { return converted<Floats>(bits_as<Ints>(code)); }
};

// Steps from the least number of the block.
template <int bits_>
struct MinMaxInteger {
  static constexpr int bits = bits_;
  static constexpr bool minmax = true;
  static constexpr bool is_signed = false;
  static constexpr int code_max = (1 << bits) - 1;
  static constexpr float largest = code_max;
  static constexpr float step = 1;

  template <bool stochastic>
  static PYCCL_INLINE Words encode(Floats y, Words draw) {
    if constexpr (!stochastic) return bits_as<Words>(nearest_integer(y));
    const Ints integer = drawn_integer(y, draw);
    return bits_as<Words>(integer < code_max ? integer : Ints{} + code_max);
  }

  static PYCCL_INLINE Floats value(Words code) { return converted<Floats>(bits_as<Ints>(code)); }
};

// Floating point in a few bits: a code is the uppermost bits of what `position` gives, an f32 whose
// exponents begin at this type's and which has subnormal numbers where this type has them.
template <int bits_, int exponent_min, int shift, std::uint32_t code_max>
struct Floating {
  static constexpr int bits = bits_;
  static constexpr bool minmax = false;
  static constexpr bool is_signed = false;
  static constexpr std::uint32_t least_normal_bits = (127u + exponent_min) << 23;
  static constexpr float least_normal = __builtin_bit_cast(float, least_normal_bits);
  static constexpr std::uint32_t first_normal = 1u << 23;
  static constexpr std::uint32_t sign_bit = 1u << (bits - 1);
  static constexpr std::uint32_t largest_position = code_max << shift;
  static constexpr float largest =
      __builtin_bit_cast(float, largest_position + (least_normal_bits - first_normal));
  static constexpr float step =
      largest -
      __builtin_bit_cast(float, ((code_max - 1) << shift) + least_normal_bits - first_normal);

  template <bool stochastic>
  static PYCCL_INLINE Words encode(Floats y, Words draw) {
    const Words word = bits_as<Words>(y);
    const Words magnitude = word & 0x7fffffffu;
    const Words sign = (word >> (32 - bits)) & sign_bit;
    if constexpr (stochastic) {
      const Words code = (position(magnitude) + (draw >> (32 - shift))) >> shift;
      const Words capped = code < code_max ? code : Words{} + code_max;
      return code == 0u ? code : capped | sign;
    } else {
      // A scale that is capped leaves y beyond the largest value by less than half a step.
      const Words code = nearest(magnitude);
      return code == 0u ? code : code | sign;
    }
  }

  static PYCCL_INLINE Floats value(Words code) {
    const Words at = (code & (sign_bit - 1)) << shift;
    const Floats subnormal = bits_as<Floats>(at + least_normal_bits) - least_normal;
    const Floats normal = bits_as<Floats>(at + (least_normal_bits - first_normal));
    const Floats magnitude = at < first_normal ? subnormal : normal;
    return bits_as<Floats>(bits_as<Words>(magnitude) ^ ((code & sign_bit) << (32 - bits)));
  }

 private:
  // Next to the least normal number the steps of f32 are as those of subnormal numbers must be.
  static PYCCL_INLINE Words position(Words magnitude) {
    const auto number = bits_as<Floats>(magnitude);
    const Words subnormal = bits_as<Words>(number + least_normal) - least_normal_bits;
    const Words normal = magnitude - (least_normal_bits - first_normal);
    return number < least_normal ? subnormal : normal;
  }

  static PYCCL_INLINE Words nearest(Words magnitude) {
    const Words at = position(magnitude);
    return (at + ((1u << (shift - 1)) - 1) + ((at >> shift) & 1u)) >> shift;
  }
};

using Int8 = SymmetricInteger<8>;
using Int4 = SymmetricInteger<4>;
using Int8MinMax = MinMaxInteger<8>;
using Int4MinMax = MinMaxInteger<4>;
using Fp8E4M3 = Floating<8, -6, 20, 0x7e>;
using Fp8E5M2 = Floating<8, -14, 21, 0x7b>;
using Fp4E3M0 = Floating<4, -2, 23, 7>;
using Fp4E2M1 = Floating<4, 0, 22, 7>;
static_assert(Fp8E4M3::largest == 448 && Fp8E4M3::step == 32);
static_assert(Fp8E5M2::largest == 57344 && Fp8E5M2::step == 8192);
static_assert(Fp4E3M0::largest == 16 && Fp4E3M0::step == 8);
static_assert(Fp4E2M1::largest == 6 && Fp4E2M1::step == 2);

}  // namespace
}  // namespace pyccl::kernels
