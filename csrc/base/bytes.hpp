// Views of bytes, and numbers in the order of the wire (little endian).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

namespace pyccl {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;
using MutableByteView = std::span<std::byte>;

// Of one control message as encoded: what the protocol keeps to and the transport enforces.
inline constexpr std::uint32_t message_bytes_max = 1 << 21;

template <class T>
  requires std::is_integral_v<T>
inline void store_little(std::byte* at, T value) {
  using U = std::make_unsigned_t<T>;
  auto bits = static_cast<U>(value);
  for (std::size_t i = 0; i < sizeof(T); ++i)
    at[i] = static_cast<std::byte>((bits >> (8 * i)) & 0xff);
}

template <class T>
  requires std::is_integral_v<T>
inline T load_little(const std::byte* at) {
  using U = std::make_unsigned_t<T>;
  U bits = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    bits = static_cast<U>(bits | (static_cast<U>(at[i]) << (8 * i)));
  return static_cast<T>(bits);
}

}  // namespace pyccl
