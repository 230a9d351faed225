// Vectors of numbers, as wide as the instruction set that this file is compiled for.
//
// GCC and Clang give vector types the operators of numbers, so a kernel is written once for "some
// lanes" and a plain number is the case of one lane. PYCCL_VECTOR_BYTES (0: one lane) is set by the
// target_*.cpp that includes this. Everything is in an unnamed namespace: each target has copies of
// its own, which the linker must not merge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#ifndef PYCCL_VECTOR_BYTES
#define PYCCL_VECTOR_BYTES 0
#endif
#define PYCCL_INLINE inline __attribute__((always_inline))

namespace pyccl::kernels {
namespace {

inline constexpr std::size_t vector_bytes = PYCCL_VECTOR_BYTES;

template <class T>
inline constexpr std::size_t lane_count = vector_bytes == 0 ? 1 : vector_bytes / sizeof(T);

template <class T, std::size_t n>
struct LanesOf {
  typedef T Type __attribute__((vector_size(n * sizeof(T))));
};
template <class T>
struct LanesOf<T, 1> {
  using Type = T;
};
template <class T, std::size_t n>
using Lanes = typename LanesOf<T, n>::Type;

template <class To, class From>
PYCCL_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

}  // namespace
}  // namespace pyccl::kernels
