// From codes to numbers.
#pragma once

#include "kernels/quantize_codecs.hpp"
#include "kernels/quantize_pack.hpp"
#include "kernels/quantize_scale.hpp"

namespace pyccl::kernels {
namespace {

// The codes of a lane as load_codes() leaves them, without what lies above them.
template <class Codec>
PYCCL_INLINE Words without_rest(Words code) {
  if constexpr (Codec::bits == 8) return code;
  code &= 15u;
  return Codec::is_signed ? (code ^ 8u) - 8u : code;
}

// A code is worth its value times the scale, of min-max codecs plus the least number.
template <class Codec>
class Value {
 public:
  explicit Value(const BlockScale& scale) {
    // Far from zero a sum is formed of halves, which can't overflow.
    const bool far = Codec::minmax && scale.scale >= 0x1p119f;
    const float half = far ? 0.5f : 1.0f;
    scale_ = scale.scale * half;
    least_ = scale.least * half;
    max_ = f32_max * half;
    twice_ = far ? 2.0f : 1.0f;
  }

  PYCCL_INLINE Floats operator()(Words code) const {
    const Floats product = Codec::value(without_rest<Codec>(code)) * scale_;
    if constexpr (!Codec::minmax) return product;
    const Floats sum = least_ + product;
    return smaller(sum, Floats{} + max_) * twice_;
  }

 private:
  float scale_;
  float least_;
  float max_;
  float twice_;
};

#if PYCCL_VECTOR_BYTES >= 32

// The sixteen values of a block, each of them computed as above.
template <class Codec>
class ValueTable {
 public:
  explicit ValueTable(const BlockScale& scale) {
    const Value<Codec> value(scale);
    std::uint32_t codes[16];
    for (std::uint32_t i = 0; i < 16; ++i) codes[i] = i;
    for (std::size_t i = 0; i < 16 / lanes; ++i) {
      Words code;
      std::memcpy(&code, codes + i * lanes, sizeof(code));
      values_[i] = value(code);
    }
  }

  PYCCL_INLINE Floats operator()(Words code) const {
#if PYCCL_VECTOR_BYTES == 64
    const auto table = bits_as<__m512>(values_[0]);
    const auto index = bits_as<__m512i>(code);
    return bits_as<Floats>(_mm512_maskz_permutexvar_ps(all_lanes, index, table));
#else
    const auto index = bits_as<__m256i>(code);
    const __m256 lower = _mm256_permutevar8x32_ps(bits_as<__m256>(values_[0]), index);
    const __m256 upper = _mm256_permutevar8x32_ps(bits_as<__m256>(values_[1]), index);
    return bits_as<Floats>(_mm256_blendv_ps(lower, upper, bits_as<__m256>(code << 28)));
#endif
  }

 private:
  Floats values_[16 / lanes];
};

template <class Codec>
using Decoder = std::conditional_t<Codec::bits == 4, ValueTable<Codec>, Value<Codec>>;

#else

template <class Codec>
using Decoder = Value<Codec>;

#endif

}  // namespace
}  // namespace pyccl::kernels
