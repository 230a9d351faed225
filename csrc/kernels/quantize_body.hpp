// Blocks of numbers to blocks of codes and back, written once for lanes of any width and compiled
// by each target_*.cpp for its processor.
//
// A block is read twice, for its scale and for its codes; the second time it comes from the cache.
// Numbers that are not stored as f32, and blocks that are not full, go by way of buffers on the
// stack that stay in the cache too, so that the loops over numbers know one type and full blocks.
#pragma once

#include "kernels/convert_body.hpp"
#include "kernels/quantize_call.hpp"
#include "kernels/quantize_codecs.hpp"
#include "kernels/quantize_pack.hpp"
#include "kernels/quantize_scale.hpp"

namespace pyccl::kernels {
namespace {

// Numbers of one block, of which each call reads or writes a whole block.
struct alignas(64) BlockBuffer {
  float number[block_elements_max];
};

// What is drawn for the numbers of a block: a hash of the block's key and the place.
class Draws {
 public:
  Draws(std::uint64_t seed, std::uint64_t block) {
    std::uint64_t z = seed + 0x9e3779b97f4a7c15u * (block + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    std::uint32_t start[lanes];
    for (std::size_t i = 0; i < lanes; ++i) start[i] = static_cast<std::uint32_t>(z + i * stride);
    std::memcpy(&start_, start, sizeof(start_));
  }

  PYCCL_INLINE Words at(std::size_t place) const {
    Words h = start_ + static_cast<std::uint32_t>(place * stride);
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
  }

 private:
  static constexpr std::uint64_t stride = 0x9e3779b9;

  Words start_;
};

template <class Codec>
PYCCL_INLINE std::size_t codes_bytes(std::size_t block) {
  return block * Codec::bits / 8;
}

PYCCL_INLINE Chunk<Floats> nan_chunk() {
  Chunk<Floats> nan;
  for (Floats& part : nan.part) part = Floats{} + bits_as<float>(f32_quiet_nan);
  return nan;
}

PYCCL_INLINE void fill_nan(float* numbers, std::size_t block) {
  const Chunk<Floats> nan = nan_chunk();
  for (std::size_t at = 0; at < block; at += chunk_elements) store_numbers(numbers + at, nan);
}

// One block: its numbers, which are finite, to `codes`, and what they decode to into `rounded`.
template <class Codec, bool stochastic, bool with_rounded>
PYCCL_INLINE void encode_numbers(const float* numbers, std::size_t block,
                                 const Quotient<Codec>& quotient, const Value<Codec>& value,
                                 const Draws& draws, std::byte* codes, float* rounded) {
  for (std::size_t at = 0; at < block; at += chunk_elements) {
    const Chunk<Floats> chunk = load_numbers(numbers + at);
    Chunk<Words> code;
    Chunk<Floats> decoded;
    for (std::size_t i = 0; i < parts; ++i) {
      const Words draw = stochastic ? draws.at(at + i * lanes) : Words{};
      code.part[i] = Codec::template encode<stochastic>(quotient(chunk.part[i]), draw);
      if constexpr (with_rounded) decoded.part[i] = value(code.part[i]);
    }
    store_codes<Codec::bits>(codes + codes_bytes<Codec>(at), code);
    if constexpr (with_rounded) store_numbers(rounded + at, decoded);
  }
}

// Gives the scale. `rounded` may be nullptr, or `numbers`.
template <class Codec, bool stochastic>
PYCCL_INLINE BlockScale encode_block(const float* numbers, std::size_t block, bool brain,
                                     const Draws& draws, std::byte* wire, float* rounded) {
  const Extremes extremes = find_extremes<Codec::minmax>(numbers, block);
  BlockScale scale;
  float half = 1;
  if (is_finite(extremes.magnitude)) {
    if constexpr (Codec::minmax) {
      scale = minmax_scale<Codec>(extremes, brain, half);
    } else {
      scale = symmetric_scale<Codec>(extremes, brain);
    }
  }
  std::byte* codes = write_scales<Codec>(wire, scale, brain);
  if (!scale.is_number) {
    std::memset(codes, 0, codes_bytes<Codec>(block));
    if (rounded != nullptr) fill_nan(rounded, block);
    return scale;
  }
  const Quotient<Codec> quotient(scale, half);
  const Value<Codec> value(scale);
  if (rounded != nullptr) {
    encode_numbers<Codec, stochastic, true>(numbers, block, quotient, value, draws, codes, rounded);
  } else {
    encode_numbers<Codec, stochastic, false>(numbers, block, quotient, value, draws, codes,
                                             nullptr);
  }
  return scale;
}

// What the padding of a short block became.
template <class Codec>
PYCCL_INLINE void clear_codes(std::byte* codes, std::size_t count, std::size_t block) {
  std::size_t first = codes_bytes<Codec>(count);
  if (Codec::bits == 4 && count % 2 == 1) codes[first++] &= std::byte{0x0f};
  std::memset(codes + first, 0, codes_bytes<Codec>(block) - first);
}

template <class Codec>
PYCCL_INLINE float larger_step(float largest, const BlockScale& scale) {
  if (!scale.is_number) return largest;
  return Larger{}(largest, scale.scale * Codec::step);
}

template <class Codec, bool stochastic>
float encode_blocks(const EncodeArguments& call) {
  const std::size_t block = call.format.block;
  const bool brain = call.format.scale == DataType::bf16;
  const std::size_t wire_bytes = scale_bytes<Codec>(brain) + codes_bytes<Codec>(block);
  const auto type = static_cast<std::size_t>(call.dtype);
  const auto rounded_type = static_cast<std::size_t>(call.rounded_dtype);
  const std::size_t size = element_bytes[type];
  const std::size_t rounded_size = element_bytes[rounded_type];
  BlockBuffer numbers;
  BlockBuffer rounded;
  float largest = 0;
  std::byte* wire = call.destination;
  std::uint64_t number = call.rounding.first_block;
  for (std::size_t at = 0; at < call.count; at += block, wire += wire_bytes, ++number) {
    const std::size_t count = call.count - at < block ? call.count - at : block;
    const std::byte* source = call.source + at * size;
    const auto* from = reinterpret_cast<const float*>(source);
    if (type != PYCCL_F32 || count < block) {
      widen_of[type](source, count, numbers.number);
      // Whatever is found in a block is found in its first number too.
      for (std::size_t i = count; i < block; ++i) numbers.number[i] = numbers.number[0];
      from = numbers.number;
    }
    std::byte* destination = call.rounded == nullptr ? nullptr : call.rounded + at * rounded_size;
    const bool direct = destination == nullptr || (rounded_type == PYCCL_F32 && count == block);
    float* to = direct ? reinterpret_cast<float*>(destination) : rounded.number;
    const Draws draws(call.rounding.seed, number);
    const auto scale = encode_block<Codec, stochastic>(from, block, brain, draws, wire, to);
    largest = larger_step<Codec>(largest, scale);
    if (count < block) clear_codes<Codec>(wire + scale_bytes<Codec>(brain), count, block);
    if (!direct) narrow_of[rounded_type](rounded.number, count, destination);
  }
  return largest;
}

// Each chunk of a block's numbers to sink(place, chunk).
template <class Codec, class Sink>
PYCCL_INLINE void decode_block(const std::byte* codes, std::size_t block, const BlockScale& scale,
                               Sink sink) {
  if (!scale.is_number) {
    const Chunk<Floats> nan = nan_chunk();
    for (std::size_t at = 0; at < block; at += chunk_elements) sink(at, nan);
    return;
  }
  const Value<Codec> value(scale);
  for (std::size_t at = 0; at < block; at += chunk_elements) {
    const auto code = load_codes<Codec::bits, Codec::is_signed>(codes + codes_bytes<Codec>(at));
    Chunk<Floats> numbers;
    for (std::size_t i = 0; i < parts; ++i) numbers.part[i] = value(code.part[i]);
    sink(at, numbers);
  }
}

template <class Codec>
float decode_blocks(const DecodeArguments& call) {
  const std::size_t block = call.format.block;
  const bool brain = call.format.scale == DataType::bf16;
  const std::size_t wire_bytes = scale_bytes<Codec>(brain) + codes_bytes<Codec>(block);
  const auto type = static_cast<std::size_t>(call.dtype);
  BlockBuffer numbers;
  float largest = 0;
  const std::byte* wire = call.source;
  for (std::size_t at = 0; at < call.count; at += block, wire += wire_bytes) {
    const std::size_t count = call.count - at < block ? call.count - at : block;
    std::byte* destination = call.destination + at * element_bytes[type];
    const bool direct = type == PYCCL_F32 && count == block;
    float* to = direct ? reinterpret_cast<float*>(destination) : numbers.number;
    const auto scale = read_scales<Codec>(wire, brain);
    decode_block<Codec>(
        wire + scale_bytes<Codec>(brain), block, scale,
        [&](std::size_t place, const Chunk<Floats>& chunk) { store_numbers(to + place, chunk); });
    largest = larger_step<Codec>(largest, scale);
    if (!direct) narrow_of[type](numbers.number, count, destination);
  }
  return largest;
}

template <class Codec, bool first>
PYCCL_INLINE void accumulate_block(const std::byte* codes, std::size_t block,
                                   const BlockScale& scale, float weight, float* sum) {
  decode_block<Codec>(codes, block, scale, [&](std::size_t place, const Chunk<Floats>& chunk) {
    Chunk<Floats> total{};
    if constexpr (!first) total = load_numbers(sum + place);
    for (std::size_t i = 0; i < parts; ++i) {
      const Floats term = chunk.part[i] * weight;
      total.part[i] = canonical<float>(first ? term : total.part[i] + term);
    }
    store_numbers(sum + place, total);
  });
}

template <class Codec>
float accumulate_blocks(const AccumulateArguments& call) {
  const std::size_t block = call.format.block;
  const bool brain = call.format.scale == DataType::bf16;
  const std::size_t wire_bytes = scale_bytes<Codec>(brain) + codes_bytes<Codec>(block);
  BlockBuffer buffer;
  float largest = 0;
  const std::byte* wire = call.source;
  for (std::size_t at = 0; at < call.count; at += block, wire += wire_bytes) {
    const std::size_t count = call.count - at < block ? call.count - at : block;
    const bool direct = count == block;
    float* sum = direct ? call.sum + at : buffer.number;
    if (!direct) {
      std::memset(&buffer, 0, sizeof(buffer));
      if (!call.first) std::memcpy(buffer.number, call.sum + at, count * sizeof(float));
    }
    const auto scale = read_scales<Codec>(wire, brain);
    const std::byte* codes = wire + scale_bytes<Codec>(brain);
    if (call.first) {
      accumulate_block<Codec, true>(codes, block, scale, call.weight, sum);
    } else {
      accumulate_block<Codec, false>(codes, block, scale, call.weight, sum);
    }
    largest = larger_step<Codec>(largest, scale);
    if (!direct) std::memcpy(call.sum + at, buffer.number, count * sizeof(float));
  }
  return largest;
}

template <class Codec>
constexpr void fill_codec(QuantizeBodies& bodies, std::size_t codec) {
  bodies.encode[codec][PYCCL_ROUNDING_NEAREST] = &encode_blocks<Codec, false>;
  bodies.encode[codec][PYCCL_ROUNDING_STOCHASTIC] = &encode_blocks<Codec, true>;
  bodies.decode[codec] = &decode_blocks<Codec>;
  bodies.accumulate[codec] = &accumulate_blocks<Codec>;
}

constexpr QuantizeBodies make_quantize_bodies() {
  QuantizeBodies bodies{};
  fill_codec<Int8>(bodies, PYCCL_CODEC_INT8);
  fill_codec<Int8MinMax>(bodies, PYCCL_CODEC_INT8_MINMAX);
  fill_codec<Int4>(bodies, PYCCL_CODEC_INT4);
  fill_codec<Int4MinMax>(bodies, PYCCL_CODEC_INT4_MINMAX);
  fill_codec<Fp8E4M3>(bodies, PYCCL_CODEC_FP8_E4M3);
  fill_codec<Fp8E5M2>(bodies, PYCCL_CODEC_FP8_E5M2);
  fill_codec<Fp4E3M0>(bodies, PYCCL_CODEC_FP4_E3M0);
  fill_codec<Fp4E2M1>(bodies, PYCCL_CODEC_FP4_E2M1);
  for (std::size_t type = 0; type < floating_type_count; ++type) {
    bodies.widen[type] = widen_of[type];
    bodies.narrow[type] = narrow_of[type];
  }
  return bodies;
}

}  // namespace
}  // namespace pyccl::kernels
