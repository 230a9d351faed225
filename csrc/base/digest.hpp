// 128 bits that stand for some bytes: XXH3-128 (kernels/digest.hpp makes them).
#pragma once

#include <compare>
#include <cstdint>
#include <string>

#include "base/bytes.hpp"

namespace pyccl {

struct Digest {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  auto operator<=>(const Digest&) const = default;
};

inline constexpr std::size_t digest_bytes = 16;

inline void store(std::byte* at, const Digest& digest) {
  store_little(at, digest.low);
  store_little(at + 8, digest.high);
}

inline Digest load_digest(const std::byte* at) {
  return {load_little<std::uint64_t>(at + 8), load_little<std::uint64_t>(at)};
}

std::string to_string(const Digest&);  // 32 hex digits, as `xxhsum -H2` prints them

}  // namespace pyccl
