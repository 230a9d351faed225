// Codes between the lanes of a vector, one in each 32 bits, and the wire, in bytes or half bytes.
//
// Always 32 codes at once, a Chunk of as many vectors as they take: blocks are multiples of it.
#pragma once

#include "kernels/convert_body.hpp"
#include "kernels/lanes.hpp"

#if PYCCL_VECTOR_BYTES >= 32
#include <immintrin.h>
#endif

namespace pyccl::kernels {
namespace {

inline constexpr std::size_t lanes = lane_count<float>;
using Floats = Lanes<float, lanes>;
using Ints = Lanes<std::int32_t, lanes>;
using Words = Lanes<std::uint32_t, lanes>;

inline constexpr std::size_t chunk_elements = 32;
inline constexpr std::size_t parts = chunk_elements / lanes;

template <class Vector>
struct Chunk {
  Vector part[parts];
};

PYCCL_INLINE Chunk<Floats> load_numbers(const float* from) {
  Chunk<Floats> numbers;
  std::memcpy(&numbers, from, sizeof(numbers));
  return numbers;
}

PYCCL_INLINE void store_numbers(float* to, const Chunk<Floats>& numbers) {
  std::memcpy(to, &numbers, sizeof(numbers));
}

// The lowest 8 bits of each.
PYCCL_INLINE void store_bytes(std::byte* to, const Chunk<Words>& codes) {
  for (std::size_t i = 0; i < parts; ++i) {
    const auto bytes = converted<Lanes<std::uint8_t, lanes>>(codes.part[i]);
    std::memcpy(to + i * lanes, &bytes, lanes);
  }
}

template <bool is_signed>
PYCCL_INLINE Chunk<Words> load_bytes(const std::byte* from) {
  using Byte = std::conditional_t<is_signed, std::int8_t, std::uint8_t>;
  Chunk<Words> codes;
  for (std::size_t i = 0; i < parts; ++i) {
    Lanes<Byte, lanes> bytes;
    std::memcpy(&bytes, from + i * lanes, lanes);
    codes.part[i] = bits_as<Words>(converted<Ints>(bytes));
  }
  return codes;
}

// The lowest 4 bits of each.
PYCCL_INLINE void store_nibbles(std::byte* to, const Chunk<Words>& codes) {
  std::uint8_t bytes[chunk_elements];
  store_bytes(reinterpret_cast<std::byte*>(bytes), codes);
  for (std::size_t i = 0; i < chunk_elements / 2; ++i) {
    const unsigned both = (bytes[2 * i] & 15u) | (bytes[2 * i + 1] & 15u) << 4;
    to[i] = static_cast<std::byte>(both);
  }
}

template <bool is_signed>
PYCCL_INLINE Chunk<Words> load_nibbles(const std::byte* from) {
  std::uint8_t bytes[chunk_elements];
  for (std::size_t i = 0; i < chunk_elements / 2; ++i) {
    const auto both = static_cast<std::uint8_t>(from[i]);
    bytes[2 * i] = both & 15;
    bytes[2 * i + 1] = both >> 4;
  }
  auto codes = load_bytes<false>(reinterpret_cast<const std::byte*>(bytes));
  if constexpr (is_signed) {
    for (Words& part : codes.part) part = (part ^ 8u) - 8u;
  }
  return codes;
}

template <int bits>
PYCCL_INLINE void store_codes(std::byte* to, const Chunk<Words>& codes) {
  if constexpr (bits == 8) {
    store_bytes(to, codes);
  } else {
    store_nibbles(to, codes);
  }
}

// With or without their sign in the upper bits.
template <int bits, bool is_signed>
PYCCL_INLINE Chunk<Words> load_codes(const std::byte* from) {
  if constexpr (bits == 8) {
    return load_bytes<is_signed>(from);
  } else {
    return load_nibbles<is_signed>(from);
  }
}

}  // namespace
}  // namespace pyccl::kernels
