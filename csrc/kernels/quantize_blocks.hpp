// What encoding and decoding share: where blocks lie, and what is in them.
#pragma once

#include "kernels/convert_body.hpp"
#include "kernels/quantize_pack.hpp"
#include "kernels/quantize_scale.hpp"

namespace pyccl::kernels {
namespace {

// Numbers of one block, of which each call reads or writes a whole block. One buffer behind another
// must not lie at the same place of another page: to the processor a read of the one then seems to
// depend on what has just been written to the other, and it waits, up to nine tenths of the time.
// Hence the gap, of a usual block's 256 numbers and a line: four such buffers don't meet.
struct alignas(64) BlockBuffer {
  float number[block_elements_max];
  std::byte apart[1088];
};

// How blocks follow each other on the wire.
template <class Codec>
struct Layout {
  explicit Layout(const BlockFormat& format)
      : block(format.block),
        brain(format.scale == DataType::bf16),
        header_bytes((brain ? 2 : 4) * (Codec::minmax ? 2 : 1)),
        wire_bytes(header_bytes + block * Codec::bits / 8) {}

  std::size_t block;  // elements
  bool brain;         // scales are bf16
  std::size_t header_bytes;
  std::size_t wire_bytes;
};

template <class Codec>
PYCCL_INLINE std::size_t codes_bytes(std::size_t block) {
  return block * Codec::bits / 8;
}

template <class Codec>
PYCCL_INLINE void store_codes(std::byte* to, const Chunk<Words>& codes) {
  if constexpr (Codec::bits == 8) {
    store_bytes<Codec::is_signed>(to, codes);
  } else {
    store_nibbles(to, codes);
  }
}

template <class Codec>
PYCCL_INLINE Chunk<Words> load_codes(const std::byte* from) {
  if constexpr (Codec::bits == 8) {
    return load_bytes<Codec::is_signed>(from);
  } else {
    return load_nibbles(from);
  }
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

template <class Codec>
PYCCL_INLINE float larger_step(float largest, const BlockScale& scale) {
  if (!scale.is_number) return largest;
  return larger(largest, scale.scale * Codec::step);
}

}  // namespace
}  // namespace pyccl::kernels
