// f16 and bf16 to f32 and back, rounding to nearest even. Exact bit work where the processor has no
// instruction, the instruction where it has one: both agree on every bit but a NaN's payload, and
// folds hand no NaN but the canonical one to the narrowing conversions.
#pragma once

#include "kernels/lanes.hpp"

#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace pyccl::kernels {
namespace {

PYCCL_INLINE float widen_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7fffu;
  if (magnitude < 0x0400) {  // subnormal: a multiple of 2^-24, exact in f32
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return bits_as<float>(sign | bits_as<std::uint32_t>(value));
  }
  // Infinity and NaN have all bits of the exponent set in both types; else the bias moves by 112.
  const std::uint32_t bias = magnitude >= 0x7c00 ? 0x7f800000u : 0u;
  return bits_as<float>(sign | bias | ((magnitude << 13) + (bias ? 0u : 112u << 23)));
}

PYCCL_INLINE std::uint16_t narrow_half(float value) {
  const auto bits = bits_as<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000;
  const std::uint32_t magnitude = bits & 0x7fffffff;
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000) {
    half = 0x7e00;
  } else if (magnitude >= 0x477ff000) {  // 65520, half way from the largest number to the next
    half = 0x7c00;
  } else if (magnitude < 0x38800000) {
    // Next to 0.5 the step of f32 is 2^-24, that of f16's subnormals: the addition rounds for us.
    half = bits_as<std::uint32_t>(bits_as<float>(magnitude) + 0.5f) - bits_as<std::uint32_t>(0.5f);
  } else {
    half = (magnitude + 0x0fff + ((magnitude >> 13) & 1) - (112u << 23)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | half);
}

#if PYCCL_VECTOR_BYTES == 64
// Masked by all lanes: the plain forms start from an undefined vector, which GCC 12 warns of.
inline constexpr __mmask16 all_lanes = 0xffff;
PYCCL_INLINE Lanes<float, 16> widen_half(Lanes<std::uint16_t, 16> half) {
  return bits_as<Lanes<float, 16>>(_mm512_maskz_cvtph_ps(all_lanes, bits_as<__m256i>(half)));
}
PYCCL_INLINE Lanes<std::uint16_t, 16> narrow_half(Lanes<float, 16> value) {
  return bits_as<Lanes<std::uint16_t, 16>>(
      _mm512_maskz_cvtps_ph(all_lanes, bits_as<__m512>(value), _MM_FROUND_TO_NEAREST_INT));
}
#elif PYCCL_VECTOR_BYTES == 32
PYCCL_INLINE Lanes<float, 8> widen_half(Lanes<std::uint16_t, 8> half) {
  return bits_as<Lanes<float, 8>>(_mm256_cvtph_ps(bits_as<__m128i>(half)));
}
PYCCL_INLINE Lanes<std::uint16_t, 8> narrow_half(Lanes<float, 8> value) {
  return bits_as<Lanes<std::uint16_t, 8>>(
      _mm256_cvtps_ph(bits_as<__m256>(value), _MM_FROUND_TO_NEAREST_INT));
}
#elif PYCCL_VECTOR_BYTES == 16
PYCCL_INLINE Lanes<float, 4> widen_half(Lanes<std::uint16_t, 4> half) {
  return bits_as<Lanes<float, 4>>(vcvt_f32_f16(bits_as<float16x4_t>(half)));
}
PYCCL_INLINE Lanes<std::uint16_t, 4> narrow_half(Lanes<float, 4> value) {
  return bits_as<Lanes<std::uint16_t, 4>>(vcvt_f16_f32(bits_as<float32x4_t>(value)));
}
#endif

// The bits of numbers in f32, rounded at the upper half, which is a bf16. The carry overflows into
// the exponent, and from the largest number to infinity, just as rounding must. The canonical NaN
// passes unchanged; another one could become infinity.
template <class BitLanes>
PYCCL_INLINE BitLanes round_brain(BitLanes bits) {
  return bits + 0x7fff + ((bits >> 16) & 1);
}

}  // namespace
}  // namespace pyccl::kernels
