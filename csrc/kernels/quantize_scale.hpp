// The scale of a block: how it is found, and how it lies on the wire.
#pragma once

#include "kernels/quantize_codecs.hpp"

namespace pyccl::kernels {
namespace {

inline constexpr std::uint32_t infinity_bits = 0x7f800000;
inline constexpr float f32_max = 0x1.fffffep127f;

struct BlockScale {
  float scale = 0;
  float least = 0;         // of min-max codecs
  bool is_number = false;  // else the whole block is NaN
};

PYCCL_INLINE bool is_finite(float value) {
  return (bits_as<std::uint32_t>(value) & 0x7fffffffu) < infinity_bits;
}

PYCCL_INLINE void write_scale(std::byte* to, float value, bool brain) {
  const auto bits = bits_as<std::uint32_t>(value);
  const auto upper = static_cast<std::uint16_t>(bits >> 16);
  if (brain) {
    std::memcpy(to, &upper, sizeof(upper));
  } else {
    std::memcpy(to, &bits, sizeof(bits));
  }
}

PYCCL_INLINE float read_scale(const std::byte* from, bool brain) {
  std::uint32_t bits = 0;
  std::uint16_t upper = 0;
  if (brain) {
    std::memcpy(&upper, from, sizeof(upper));
    bits = static_cast<std::uint32_t>(upper) << 16;
  } else {
    std::memcpy(&bits, from, sizeof(bits));
  }
  return bits_as<float>(bits);
}

// Gives where the codes begin.
template <class Codec>
PYCCL_INLINE std::byte* write_scales(std::byte* wire, const BlockScale& scale, bool brain) {
  const float first = scale.is_number ? scale.scale : bits_as<float>(f32_quiet_nan);
  write_scale(wire, first, brain);
  if constexpr (Codec::minmax) write_scale(wire + (brain ? 2 : 4), scale.least, brain);
  return wire + (brain ? 2 : 4) * (Codec::minmax ? 2 : 1);
}

template <class Codec>
PYCCL_INLINE BlockScale read_scales(const std::byte* wire, bool brain) {
  BlockScale scale;
  scale.scale = read_scale(wire, brain);
  if constexpr (Codec::minmax) scale.least = read_scale(wire + (brain ? 2 : 4), brain);
  scale.is_number = is_finite(scale.scale) && is_finite(scale.least);
  return scale;
}

template <class T, std::size_t n, class Combine>
PYCCL_INLINE T fold_lanes(Lanes<T, n> value, Combine combine) {
  if constexpr (n == 1) {
    return value;
  } else if constexpr (n == 4) {
    const auto pairs = combine(value, __builtin_shufflevector(value, value, 2, 3, 0, 1));
    return combine(pairs, __builtin_shufflevector(pairs, pairs, 1, 0, 3, 2))[0];
  } else {
    struct Halves {
      Lanes<T, n / 2> lower;
      Lanes<T, n / 2> upper;
    };
    const auto halves = bits_as<Halves>(value);
    return fold_lanes<T, n / 2>(combine(halves.lower, halves.upper), combine);
  }
}

struct Smaller {
  template <class V>
  PYCCL_INLINE V operator()(V a, V b) const {
    return smaller(a, b);
  }
};

struct Larger {
  template <class V>
  PYCCL_INLINE V operator()(V a, V b) const {
    return larger(a, b);
  }
};

// The bits of magnitudes are in the order of the magnitudes, infinity and NaN above all numbers.
PYCCL_INLINE Ints magnitude_of(Floats number) { return bits_as<Ints>(number) & 0x7fffffff; }

struct Extremes {
  float magnitude;  // of minmax only whether it is finite matters
  float least;
  float greatest;
};

// The search for a block's extremes, chunk by chunk.
template <bool minmax>
class Search {
 public:
  PYCCL_INLINE void add(const Chunk<Floats>& chunk) {
    for (const Floats& part : chunk.part) {
      magnitude_ = larger(magnitude_, magnitude_of(part));
      if constexpr (minmax) {
        least_ = smaller(least_, part);
        greatest_ = larger(greatest_, part);
      }
    }
  }

  PYCCL_INLINE Extremes extremes() const {
    const auto magnitude = fold_lanes<std::int32_t, lanes>(magnitude_, Larger{});
    if constexpr (!minmax) return {bits_as<float>(magnitude), 0, 0};
    // Which of two zeros comes out depends on the order; the addition leaves +0.
    return {bits_as<float>(magnitude), fold_lanes<float, lanes>(least_, Smaller{}) + 0.0f,
            fold_lanes<float, lanes>(greatest_, Larger{}) + 0.0f};
  }

 private:
  Ints magnitude_{};
  Floats least_ = Floats{} + f32_max;
  Floats greatest_ = Floats{} - f32_max;
};

// Up, as far as the magnitude goes; past the largest number that is infinity.
PYCCL_INLINE float brain_away_from_zero(float value) {
  return bits_as<float>((bits_as<std::uint32_t>(value) + 0xffffu) & 0xffff0000u);
}

PYCCL_INLINE float brain_below(float value) {
  const auto bits = bits_as<std::uint32_t>(value);
  if (bits >> 31 == 0) return bits_as<float>(bits & 0xffff0000u);
  const float rounded = brain_away_from_zero(value);
  return is_finite(rounded) ? rounded : bits_as<float>(0xff7f0000u);
}

// The least scale by which `largest` codes reach as far as `distance`.
PYCCL_INLINE float reaching(float distance, float largest) {
  const float scale = distance / largest;
  if (scale * largest >= distance) return scale;
  return bits_as<float>(bits_as<std::uint32_t>(scale) + 1);
}

// The largest scale, among those whose bits are multiples of `step`, by which the largest code
// stays finite. Products are exact in double; from `infinite` on, f32 rounds to infinity.
constexpr float scale_max(double largest, std::uint32_t step) {
  constexpr double infinite = 0x1p128 - 0x1p103;
  const auto first = static_cast<float>(f32_max / largest);
  std::uint32_t bits = __builtin_bit_cast(std::uint32_t, first) / step * step + step;
  while (largest * static_cast<double>(__builtin_bit_cast(float, bits)) >= infinite) bits -= step;
  return __builtin_bit_cast(float, bits);
}

template <class Codec>
PYCCL_INLINE BlockScale symmetric_scale(const Extremes& extremes, bool brain) {
  constexpr float plain_max = scale_max(Codec::largest, 1);
  constexpr float brain_max = scale_max(Codec::largest, 0x10000);
  float scale = reaching(extremes.magnitude, Codec::largest);
  if (brain) scale = brain_away_from_zero(scale);
  return {smaller(scale, brain ? brain_max : plain_max), 0, true};
}

// The distance from the least to the greatest number may be infinite; that of their halves isn't.
PYCCL_INLINE float half_if_far(float least, float greatest) {
  return is_finite(greatest - least) ? 1.0f : 0.5f;
}

template <class Codec>
PYCCL_INLINE BlockScale minmax_scale(const Extremes& extremes, bool brain, float& half) {
  const float least = brain ? brain_below(extremes.least) : extremes.least;
  half = half_if_far(least, extremes.greatest);
  // The lowest bf16 lies above the lowest f32, so a block may end below where it is to begin.
  const float wide = extremes.greatest * half - least * half;
  const float distance = wide > 0 ? wide : 0.0f;
  const float scale = reaching(distance, Codec::largest) / half;
  return {brain ? brain_away_from_zero(scale) : scale, least, true};
}

// `half` is what min-max codecs multiply numbers by, so that no distance is infinite.
template <class Codec>
PYCCL_INLINE BlockScale scale_of(const Extremes& extremes, bool brain, float& half) {
  half = 1;
  if (!is_finite(extremes.magnitude)) return {};
  if constexpr (Codec::minmax) {
    return minmax_scale<Codec>(extremes, brain, half);
  } else {
    return symmetric_scale<Codec>(extremes, brain);
  }
}

}  // namespace
}  // namespace pyccl::kernels
