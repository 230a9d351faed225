// From numbers to codes: by division, and to nearest also by quicker ways that give the same codes.
#pragma once

#include "kernels/quantize_codecs.hpp"
#include "kernels/quantize_pack.hpp"
#include "kernels/quantize_scale.hpp"

namespace pyccl::kernels {
namespace {

#if PYCCL_VECTOR_BYTES == 64
PYCCL_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return bits_as<Floats>(
      _mm512_fmadd_ps(bits_as<__m512>(a), bits_as<__m512>(b), bits_as<__m512>(c)));
}
#elif PYCCL_VECTOR_BYTES == 32
PYCCL_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return bits_as<Floats>(
      _mm256_fmadd_ps(bits_as<__m256>(a), bits_as<__m256>(b), bits_as<__m256>(c)));
}
#elif PYCCL_VECTOR_BYTES == 16
PYCCL_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return bits_as<Floats>(
      vfmaq_f32(bits_as<float32x4_t>(c), bits_as<float32x4_t>(a), bits_as<float32x4_t>(b)));
}
#endif

// From numbers to units of the scale.
template <class Codec>
class Quotient {
 public:
  Quotient(const BlockScale& scale, float half)
      : half_(half), least_(scale.least * half), divisor_(scale.scale * half) {
    if (divisor_ == 0) divisor_ = 1;  // all numbers of the block give 0
    reciprocal_ = 1 / divisor_;
  }

  // Whether quick quotients give the same codes to nearest: no product overflows or loses bits to
  // the subnormal numbers unless y is so small that its code is 0.
  PYCCL_INLINE bool is_tame() const {
    return vector_bytes != 0 && divisor_ >= 0x1p-60f && divisor_ <= 0x1p60f;
  }

  float divisor() const { return divisor_; }

  template <bool quick>
  PYCCL_INLINE Floats of(Floats number) const {
    if constexpr (!Codec::minmax) return divided<quick>(number);
    const Floats y = divided<quick>(number * half_ - least_);
    return larger(y, Floats{});  // the least number may lie below the least bf16
  }

 private:
  // A division takes longer than all else that is done to a number. The quotient by way of the
  // correctly rounded reciprocal is off by at most 1.5 units in the last place, and one correction
  // makes it the correctly rounded one: it could miss that only where number / divisor is closer to
  // the middle of two neighbours than 4 / divisor units, with the divisor as an integer of 24 bits.
  // All such pairs, 46 million, were tried, with none missed.
  template <bool quick>
  PYCCL_INLINE Floats divided(Floats number) const {
#if PYCCL_VECTOR_BYTES != 0
    if constexpr (quick) {
      const Floats quotient = number * reciprocal_;
      const Floats remainder = multiply_add(-quotient, Floats{} + divisor_, number);
      return multiply_add(remainder, Floats{} + reciprocal_, quotient);
    }
#endif
    return number / divisor_;
  }

  float half_;
  float least_;
  float divisor_;
  float reciprocal_;
};

// To nearest, where the quotient is tame.
template <class Codec>
class QuickNearest {
 public:
  explicit QuickNearest(const Quotient<Codec>& quotient) : quotient_(quotient) {}

  PYCCL_INLINE Words code(Floats number) const {
    return Codec::template encode<false>(quotient_.template of<true>(number), Words{});
  }

 private:
  Quotient<Codec> quotient_;
};

#if PYCCL_VECTOR_BYTES != 0

// The bits of the least number that is at least `bound`, or above it.
PYCCL_INLINE std::int32_t least_from(double bound) {
  const auto near = static_cast<float>(bound);
  return bits_as<std::int32_t>(near) + (static_cast<double>(near) < bound ? 1 : 0);
}
PYCCL_INLINE std::int32_t least_above(double bound) {
  const auto near = static_cast<float>(bound);
  return bits_as<std::int32_t>(near) + (static_cast<double>(near) <= bound ? 1 : 0);
}

// The thresholds between codes that are powers of two, 3/2 times a power of two, are a step of the
// exponent apart. So the code is in the upper bits of the distance between the bits of a number and
// those of a threshold, and nothing is to be divided; but at every other threshold the tie, and
// whatever quotient is rounded to it, stays below.
template <>
class QuickNearest<Fp4E3M0> {
 public:
  explicit QuickNearest(const Quotient<Fp4E3M0>& quotient) {
    // From here to there quotients are rounded to 3/2, which is even. It lies between the codes 3
    // and 4, of which 4 is even. The products are exact.
    const double scale = quotient.divisor();
    const std::int32_t even = least_from(scale * (1.5 - 0x1p-24));
    const std::int32_t odd = least_above(scale * (1.5 + 0x1p-24));
    offset_ = 4 * one_code - static_cast<std::uint32_t>(even);
    odd_ = static_cast<std::uint32_t>(odd - even);
    // Half the least normal number is a tie too: what leaves zero when the least normal number is
    // added lies above it by two units in the last place, or is rounded to that.
    nonzero_ = least_from(scale * (0.125 + 0x1p-25 - 0x1p-27));
  }

  PYCCL_INLINE Words code(Floats number) const {
    const Words word = bits_as<Words>(number);
    const Words magnitude = word & 0x7fffffffu;
    const Words at = magnitude + offset_;
    const Ints least = Ints{} + std::int32_t{one_code};
#if PYCCL_VECTOR_BYTES == 64
    const Words passed = (at & one_code) != 0u ? at - odd_ : at;
    const Words code = bits_as<Words>(larger(bits_as<Ints>(passed), least)) >> 23;
    const __mmask16 nonzero =
        _mm512_cmpge_epi32_mask(bits_as<__m512i>(magnitude), _mm512_set1_epi32(nonzero_));
    constexpr int a_or_b_and_c = 0xf8;
    return bits_as<Words>(_mm512_maskz_ternarylogic_epi32(nonzero, bits_as<__m512i>(code),
                                                          bits_as<__m512i>(word >> 28),
                                                          _mm512_set1_epi32(8), a_or_b_and_c));
#else
    const Words passed = at - (bits_as<Words>(bits_as<Ints>(at << 8) >> 31) & odd_);
    const Words code = bits_as<Words>(larger(bits_as<Ints>(passed), least)) >> 23;
    const Words sign = (word >> 28) & 8u;
    return bits_as<Ints>(magnitude) < nonzero_ ? Words{} : code | sign;
#endif
  }

 private:
  static constexpr std::uint32_t one_code = 1u << 23;

  std::uint32_t offset_;
  std::uint32_t odd_;
  std::int32_t nonzero_;
};

#endif

}  // namespace
}  // namespace pyccl::kernels
