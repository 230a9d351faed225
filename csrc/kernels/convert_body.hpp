// Between f32 and the other floating types, for arrays; written once for lanes of any width.
#pragma once

#include "kernels/half.hpp"
#include "kernels/lanes.hpp"
#include "kernels/quantize_call.hpp"

namespace pyccl::kernels {
namespace {

template <DataType type>
struct Stored {
  using Element = std::uint16_t;
  static constexpr std::size_t lanes = lane_count<float>;
};
template <>
struct Stored<DataType::f32> {
  using Element = float;
  static constexpr std::size_t lanes = lane_count<float>;
};
template <>
struct Stored<DataType::f64> {
  using Element = double;
  static constexpr std::size_t lanes = lane_count<double>;
};

template <DataType type, class StoredLanes>
PYCCL_INLINE auto widened(StoredLanes stored) {
  constexpr std::size_t lanes = Stored<type>::lanes;
  using Numbers = Lanes<float, lanes>;
  if constexpr (type == DataType::f16) {
    return canonical<float>(widen_half(stored));
  } else if constexpr (type == DataType::bf16) {
    const auto bits = converted<Lanes<std::uint32_t, lanes>>(stored) << 16;
    return canonical<float>(bits_as<Numbers>(bits));
  } else {
    return canonical<float>(converted<Numbers>(stored));
  }
}

template <DataType type, class Numbers>
PYCCL_INLINE auto narrowed(Numbers numbers) {
  constexpr std::size_t lanes = Stored<type>::lanes;
  using StoredLanes = Lanes<typename Stored<type>::Element, lanes>;
  const Numbers number = canonical<float>(numbers);
  if constexpr (type == DataType::f16) {
    return narrow_half(number);
  } else if constexpr (type == DataType::bf16) {
    const auto bits = round_brain(bits_as<Lanes<std::uint32_t, lanes>>(number));
    return converted<StoredLanes>(bits >> 16);
  } else {
    return converted<StoredLanes>(number);
  }
}

// Maps `count` elements vector by vector; the last ones by way of buffers that may be read and
// written whole.
template <class From, class To, std::size_t lanes, class Map>
PYCCL_INLINE void map_array(const std::byte* source, std::size_t count, std::byte* destination,
                            Map map) {
  const auto at = [&](const std::byte* from, std::byte* to) {
    Lanes<From, lanes> in;
    std::memcpy(&in, from, sizeof(in));
    const Lanes<To, lanes> out = map(in);
    std::memcpy(to, &out, sizeof(out));
  };
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes)
    at(source + i * sizeof(From), destination + i * sizeof(To));
  if (i == count) return;
  std::byte from[lanes * sizeof(From)] = {};
  std::byte to[lanes * sizeof(To)];
  std::memcpy(from, source + i * sizeof(From), (count - i) * sizeof(From));
  at(from, to);
  std::memcpy(destination + i * sizeof(To), to, (count - i) * sizeof(To));
}

template <DataType type>
void widen_array(const std::byte* source, std::size_t count, float* destination) {
  using Element = typename Stored<type>::Element;
  map_array<Element, float, Stored<type>::lanes>(source, count,
                                                 reinterpret_cast<std::byte*>(destination),
                                                 [](auto stored) { return widened<type>(stored); });
}

template <DataType type>
void narrow_array(const float* source, std::size_t count, std::byte* destination) {
  using Element = typename Stored<type>::Element;
  map_array<float, Element, Stored<type>::lanes>(
      reinterpret_cast<const std::byte*>(source), count, destination,
      [](auto number) { return narrowed<type>(number); });
}

constexpr QuantizeBodies::Widen widen_of[floating_type_count] = {
    &widen_array<DataType::f32>, &widen_array<DataType::f64>, &widen_array<DataType::f16>,
    &widen_array<DataType::bf16>};
constexpr QuantizeBodies::Narrow narrow_of[floating_type_count] = {
    &narrow_array<DataType::f32>, &narrow_array<DataType::f64>, &narrow_array<DataType::f16>,
    &narrow_array<DataType::bf16>};
constexpr std::size_t element_bytes[floating_type_count] = {4, 8, 2, 2};
static_assert(PYCCL_F32 == 0 && PYCCL_F64 == 1 && PYCCL_F16 == 2 && PYCCL_BF16 == 3);

}  // namespace
}  // namespace pyccl::kernels
