// Codes between the lanes of a vector, one in each 32 bits, and the wire, in bytes or half bytes.
//
// Always 32 codes at once, a Chunk of as many vectors as they take: blocks are multiples of it.
// By instructions of each set, since what compilers make of conversions between lanes of 32 and of
// 8 bits goes lane by lane. Where codes have 4 bits, the upper bits of a lane are anything.
#pragma once

#include "kernels/half.hpp"
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

// By way of one vector: copies to or from an array of them would go through memory.
template <class Vector>
PYCCL_INLINE Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <class Vector>
PYCCL_INLINE void store(void* to, Vector vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

PYCCL_INLINE Chunk<Floats> load_numbers(const float* from) {
  Chunk<Floats> numbers;
  for (std::size_t i = 0; i < parts; ++i) numbers.part[i] = load<Floats>(from + i * lanes);
  return numbers;
}

PYCCL_INLINE void store_numbers(float* to, const Chunk<Floats>& numbers) {
  for (std::size_t i = 0; i < parts; ++i) store(to + i * lanes, numbers.part[i]);
}

#if PYCCL_VECTOR_BYTES == 64

// All are masked by all lanes, as in half.hpp.
PYCCL_INLINE __m128i packed(Words codes) {
  return _mm512_maskz_cvtepi32_epi8(all_lanes, bits_as<__m512i>(codes));
}

template <bool is_signed>
PYCCL_INLINE void store_bytes(std::byte* to, const Chunk<Words>& codes) {
  for (std::size_t i = 0; i < parts; ++i) {
    store(to + i * lanes, packed(codes.part[i]));
  }
}

template <bool is_signed>
PYCCL_INLINE Chunk<Words> load_bytes(const std::byte* from) {
  Chunk<Words> codes;
  for (std::size_t i = 0; i < parts; ++i) {
    const auto bytes = load<__m128i>(from + i * lanes);
    codes.part[i] = bits_as<Words>(is_signed ? _mm512_maskz_cvtepi8_epi32(all_lanes, bytes)
                                             : _mm512_maskz_cvtepu8_epi32(all_lanes, bytes));
  }
  return codes;
}

PYCCL_INLINE void store_nibbles(std::byte* to, const Chunk<Words>& codes) {
  const __m512i words =
      _mm512_packs_epi32(bits_as<__m512i>(codes.part[0]), bits_as<__m512i>(codes.part[1]));
  const __m512i nibbles = _mm512_and_si512(words, _mm512_set1_epi16(0x0f));
  // first + 16 * second of each two.
  const __m512i pairs = _mm512_madd_epi16(nibbles, _mm512_set1_epi32(0x00100001));
  // Packing went on in each quarter of the vectors by itself: two bytes of the one, two of the
  // other.
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  store(to, _mm_shuffle_epi8(packed(bits_as<Words>(pairs)), order));
}

PYCCL_INLINE Chunk<Words> load_nibbles(const std::byte* from) {
  Chunk<Words> codes;
  for (std::size_t i = 0; i < parts; ++i) {
    const __m128i bytes = _mm_cvtsi64_si128(load<std::int64_t>(from + i * lanes / 2));
    const __m512i pairs = _mm512_maskz_cvtepu8_epi64(0xff, bytes);
    // Of each byte's 64 bits, the lower half begins with the first code and the upper with the
    // second.
    codes.part[i] = bits_as<Words>(bits_as<Lanes<std::uint64_t, 8>>(pairs) |
                                   bits_as<Lanes<std::uint64_t, 8>>(pairs) << 28);
  }
  return codes;
}

#elif PYCCL_VECTOR_BYTES == 32

template <bool is_signed>
PYCCL_INLINE __m256i packed(const Chunk<Words>& codes) {
  const auto part = [&](std::size_t i) { return bits_as<__m256i>(codes.part[i]); };
  const __m256i lower = _mm256_packs_epi32(part(0), part(1));
  const __m256i upper = _mm256_packs_epi32(part(2), part(3));
  const __m256i bytes =
      is_signed ? _mm256_packs_epi16(lower, upper) : _mm256_packus_epi16(lower, upper);
  // Packing goes on in each half of the vector by itself.
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

template <bool is_signed>
PYCCL_INLINE void store_bytes(std::byte* to, const Chunk<Words>& codes) {
  store(to, packed<is_signed>(codes));
}

template <bool is_signed>
PYCCL_INLINE Chunk<Words> load_bytes(const std::byte* from) {
  Chunk<Words> codes;
  for (std::size_t i = 0; i < parts; ++i) {
    const __m128i bytes = _mm_cvtsi64_si128(load<std::int64_t>(from + i * lanes));
    codes.part[i] =
        bits_as<Words>(is_signed ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
  }
  return codes;
}

// As for 64 bytes.
PYCCL_INLINE void store_nibbles(std::byte* to, const Chunk<Words>& codes) {
  const __m256i bytes = _mm256_and_si256(packed<true>(codes), _mm256_set1_epi8(0x0f));
  const __m256i joined = _mm256_maddubs_epi16(bytes, _mm256_set1_epi16(0x1001));
  const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packus_epi16(joined, joined), 0x08);
  store(to, _mm256_castsi256_si128(pairs));
}

PYCCL_INLINE Chunk<Words> load_nibbles(const std::byte* from) {
  Chunk<Words> codes;
  for (std::size_t i = 0; i < parts; ++i) {
    const __m128i bytes = _mm_cvtsi32_si128(load<std::int32_t>(from + i * lanes / 2));
    const __m256i pairs = _mm256_cvtepu8_epi64(bytes);
    codes.part[i] = bits_as<Words>(_mm256_or_si256(pairs, _mm256_slli_epi64(pairs, 28)));
  }
  return codes;
}

#elif PYCCL_VECTOR_BYTES == 16

using Shorts = Lanes<std::uint16_t, 8>;
using Bytes = Lanes<std::uint8_t, 16>;

// The lower half of each 32 bits, and of each 16: little endian.
PYCCL_INLINE Shorts narrowed(Words a, Words b) {
  return __builtin_shufflevector(bits_as<Shorts>(a), bits_as<Shorts>(b), 0, 2, 4, 6, 8, 10, 12, 14);
}
PYCCL_INLINE Bytes narrowed(Shorts a, Shorts b) {
  return __builtin_shufflevector(bits_as<Bytes>(a), bits_as<Bytes>(b), 0, 2, 4, 6, 8, 10, 12, 14,
                                 16, 18, 20, 22, 24, 26, 28, 30);
}

PYCCL_INLINE Bytes packed(const Words* four) {
  return narrowed(narrowed(four[0], four[1]), narrowed(four[2], four[3]));
}

// 16 codes to four vectors, each in the uppermost bits of its lane.
PYCCL_INLINE void spread(Bytes bytes, Words* four) {
  const Bytes zero{};
  const auto lower = bits_as<Shorts>(
      __builtin_shufflevector(zero, bytes, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  const auto upper = bits_as<Shorts>(__builtin_shufflevector(zero, bytes, 8, 24, 9, 25, 10, 26, 11,
                                                             27, 12, 28, 13, 29, 14, 30, 15, 31));
  const Shorts none{};
  four[0] = bits_as<Words>(__builtin_shufflevector(none, lower, 0, 8, 1, 9, 2, 10, 3, 11));
  four[1] = bits_as<Words>(__builtin_shufflevector(none, lower, 4, 12, 5, 13, 6, 14, 7, 15));
  four[2] = bits_as<Words>(__builtin_shufflevector(none, upper, 0, 8, 1, 9, 2, 10, 3, 11));
  four[3] = bits_as<Words>(__builtin_shufflevector(none, upper, 4, 12, 5, 13, 6, 14, 7, 15));
}

template <bool is_signed>
PYCCL_INLINE void store_bytes(std::byte* to, const Chunk<Words>& codes) {
  for (std::size_t i = 0; i < parts; i += 4) {
    store(to + i * lanes, packed(codes.part + i));
  }
}

template <bool is_signed>
PYCCL_INLINE Chunk<Words> load_bytes(const std::byte* from) {
  Chunk<Words> codes;
  for (std::size_t i = 0; i < parts; i += 4) {
    spread(load<Bytes>(from + i * lanes), codes.part + i);
  }
  for (Words& part : codes.part) {
    part = is_signed ? bits_as<Words>(bits_as<Ints>(part) >> 24) : part >> 24;
  }
  return codes;
}

PYCCL_INLINE void store_nibbles(std::byte* to, const Chunk<Words>& codes) {
  const auto first = bits_as<Shorts>(packed(codes.part));
  const auto second = bits_as<Shorts>(packed(codes.part + 4));
  const auto joined = [](Shorts pairs) { return (pairs & 0x0f) | (pairs >> 4 & 0xf0); };
  store(to, narrowed(joined(first), joined(second)));
}

PYCCL_INLINE Chunk<Words> load_nibbles(const std::byte* from) {
  Chunk<Words> codes;
  const auto pairs = load<Bytes>(from);
  const Bytes second = pairs >> 4;
  spread(__builtin_shufflevector(pairs, second, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7,
                                 23),
         codes.part);
  spread(__builtin_shufflevector(pairs, second, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14,
                                 30, 15, 31),
         codes.part + 4);
  for (Words& part : codes.part) part = part >> 24;
  return codes;
}

#else

template <bool is_signed>
PYCCL_INLINE void store_bytes(std::byte* to, const Chunk<Words>& codes) {
  for (std::size_t i = 0; i < parts; ++i) to[i] = static_cast<std::byte>(codes.part[i]);
}

template <bool is_signed>
PYCCL_INLINE Chunk<Words> load_bytes(const std::byte* from) {
  using Byte = std::conditional_t<is_signed, std::int8_t, std::uint8_t>;
  Chunk<Words> codes;
  for (std::size_t i = 0; i < parts; ++i) {
    codes.part[i] = static_cast<Words>(static_cast<Byte>(from[i]));
  }
  return codes;
}

PYCCL_INLINE void store_nibbles(std::byte* to, const Chunk<Words>& codes) {
  for (std::size_t i = 0; i < parts; i += 2) {
    to[i / 2] = static_cast<std::byte>((codes.part[i] & 15) | (codes.part[i + 1] & 15) << 4);
  }
}

PYCCL_INLINE Chunk<Words> load_nibbles(const std::byte* from) {
  Chunk<Words> codes;
  for (std::size_t i = 0; i < parts; i += 2) {
    codes.part[i] = static_cast<Words>(from[i / 2]);
    codes.part[i + 1] = codes.part[i] >> 4;
  }
  return codes;
}

#endif

}  // namespace
}  // namespace pyccl::kernels
