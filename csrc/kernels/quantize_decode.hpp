// Blocks of codes to numbers, and to sums of numbers.
#pragma once

#include "kernels/prefetch.hpp"
#include "kernels/quantize_blocks.hpp"
#include "kernels/quantize_value.hpp"

namespace pyccl::kernels {
namespace {

// Each chunk of a block's numbers to sink(place, chunk).
template <class Codec, class Sink>
PYCCL_INLINE void decode_block(const std::byte* codes, std::size_t block, const BlockScale& scale,
                               Sink sink) {
  if (!scale.is_number) {
    const Chunk<Floats> nan = nan_chunk();
    for (std::size_t at = 0; at < block; at += chunk_elements) sink(at, nan);
    return;
  }
  const Decoder<Codec> decoder(scale);
  for (std::size_t at = 0; at < block; at += chunk_elements) {
    const auto code = load_codes<Codec>(codes + codes_bytes<Codec>(at));
    Chunk<Floats> numbers;
    for (std::size_t i = 0; i < parts; ++i) numbers.part[i] = decoder(code.part[i]);
    sink(at, numbers);
  }
}

template <class Codec>
float decode_blocks(const DecodeArguments& call) {
  const Layout<Codec> layout(call.format);
  const auto type = static_cast<std::size_t>(call.dtype);
  BlockBuffer numbers;
  float largest = 0;
  const std::byte* wire = call.source;
  for (std::size_t at = 0; at < call.count; at += layout.block, wire += layout.wire_bytes) {
    const std::size_t left = call.count - at;
    std::byte* destination = call.destination + at * element_bytes[type];
    const bool direct = type == PYCCL_F32 && left >= layout.block;
    float* to = direct ? reinterpret_cast<float*>(destination) : numbers.number;
    const auto scale = read_scales<Codec>(wire, layout.brain);
    decode_block<Codec>(wire + layout.header_bytes, layout.block, scale,
                        [&](std::size_t place, const Chunk<Floats>& chunk) {
                          prefetch_to_write(to + place, sizeof(chunk));
                          store_numbers(to + place, chunk);
                        });
    largest = larger_step<Codec>(largest, scale);
    if (!direct) narrow_of[type](to, left < layout.block ? left : layout.block, destination);
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
  const Layout<Codec> layout(call.format);
  BlockBuffer buffer{};
  float largest = 0;
  const std::byte* wire = call.source;
  for (std::size_t at = 0; at < call.count; at += layout.block, wire += layout.wire_bytes) {
    const std::size_t left = call.count - at;
    const bool direct = left >= layout.block;
    float* sum = direct ? call.sum + at : buffer.number;
    if (!direct && !call.first) std::memcpy(sum, call.sum + at, left * sizeof(float));
    const auto scale = read_scales<Codec>(wire, layout.brain);
    const std::byte* codes = wire + layout.header_bytes;
    if (call.first) {
      accumulate_block<Codec, true>(codes, layout.block, scale, call.weight, sum);
    } else {
      accumulate_block<Codec, false>(codes, layout.block, scale, call.weight, sum);
    }
    largest = larger_step<Codec>(largest, scale);
    if (!direct) std::memcpy(call.sum + at, sum, left * sizeof(float));
  }
  return largest;
}

}  // namespace
}  // namespace pyccl::kernels
