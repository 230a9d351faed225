// Block digests: those of XXH3-128 as its authors publish them, alike on every instruction set.
#include <doctest/doctest.h>

#include "base/prng.hpp"
#include "kernels/digest.hpp"
#include "kernels/kernels.hpp"

namespace pyccl::kernels {
namespace {

Digest of_text(const char* text) {
  return digest_of(
      {reinterpret_cast<const std::byte*>(text), std::char_traits<char>::length(text)});
}

}  // namespace

// Independent of the library at hand: as `xxhsum -H2` of version 0.8 prints them.
TEST_CASE("digests: known values") {
  CHECK(to_string(of_text("")) == "99aa06d3014798d86001c324468d497f");
  CHECK(to_string(of_text("a")) == "a96faf705af16834e6c632b61e964e1f");
  CHECK(to_string(of_text("abc")) == "06b05ab6733a618578af5f94892f3950");
}

TEST_CASE("digests: every target makes the same of every length and alignment") {
  Prng prng(5);
  Bytes bytes((1 << 20) + 64);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(prng.below(256));
  for (const std::size_t size :
       {0, 1, 3, 8, 16, 17, 128, 129, 240, 241, 1023, 1024, 4097, 1 << 20}) {
    for (const std::size_t offset : {0, 1, 7, 63}) {
      const Digest first = targets().front()->digest(bytes.data() + offset, size);
      for (const Target* target : targets()) {
        CHECK(target->digest(bytes.data() + offset, size) == first);
      }
      if (size == 0) continue;
      Bytes other(bytes.begin() + static_cast<std::ptrdiff_t>(offset),
                  bytes.begin() + static_cast<std::ptrdiff_t>(offset + size));
      other[prng.below(size)] ^= std::byte{1} << prng.below(8);
      CHECK(digest_of(other) != first);
    }
  }
}

TEST_CASE("digests: to bytes and back") {
  const Digest digest{0x0123456789abcdefull, 0xfedcba9876543210ull};
  std::byte bytes[digest_bytes];
  store(bytes, digest);
  CHECK(load_digest(bytes) == digest);
  CHECK(to_string(digest) == "0123456789abcdeffedcba9876543210");
}

}  // namespace pyccl::kernels
