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

template <class To, class From>
PYCCL_INLINE To converted(From from) {
  if constexpr (std::is_arithmetic_v<From>) {
    return static_cast<To>(from);
  } else {
    return __builtin_convertvector(from, To);
  }
}

inline constexpr std::uint32_t f32_quiet_nan = 0x7fc00000;

// Which NaN an addition returns depends on the processor and on how the compiler orders the
// operands; so none of them leaves a kernel.
template <class Scalar, class Vector>
PYCCL_INLINE Vector canonical(Vector value) {
  using Bits = std::conditional_t<sizeof(Scalar) == 4, std::uint32_t, std::uint64_t>;
  using BitLanes = Lanes<Bits, sizeof(Vector) / sizeof(Scalar)>;
  constexpr Bits quiet_nan = sizeof(Scalar) == 4 ? Bits{f32_quiet_nan} : Bits(0x7ff8ull << 48);
  const Vector nan = bits_as<Vector>(BitLanes{} + quiet_nan);
  return value == value ? value : nan;
}

}  // namespace
}  // namespace pyccl::kernels
