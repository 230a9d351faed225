// copy_streaming against memcpy, at every alignment and around every boundary of a line.
#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "base/bytes.hpp"
#include "base/prng.hpp"
#include "kernels/copy.hpp"

using namespace pyccl;

TEST_CASE("copy_streaming copies exactly what it is told to") {
  Prng prng(1);
  Bytes source(1024);
  for (std::byte& byte : source) byte = static_cast<std::byte>(prng.below(256));
  for (std::size_t from = 0; from < 5; ++from) {
    for (std::size_t to = 0; to < 70; to += 3) {
      for (const std::size_t size : {0, 1, 63, 64, 65, 127, 128, 200, 640, 777}) {
        Bytes destination(1024, std::byte{0xee});
        kernels::copy_streaming(destination.data() + to, source.data() + from, size);
        for (std::size_t i = 0; i < destination.size(); ++i) {
          const bool inside = i >= to && i < to + size;
          REQUIRE(destination[i] == (inside ? source[from + i - to] : std::byte{0xee}));
        }
      }
    }
  }
}

TEST_CASE("copy_streaming copies pages that it takes side by side") {
  Prng prng(2);
  Bytes source(80'000);
  for (std::byte& byte : source) byte = static_cast<std::byte>(prng.below(256));
  for (const std::size_t to : {0, 1, 16, 63}) {
    for (const std::size_t size : {16'383, 16'384, 16'448, 32'769, 70'001}) {
      Bytes destination(80'000, std::byte{0xee});
      kernels::copy_streaming(destination.data() + to, source.data() + 3, size);
      const auto begin = source.begin() + 3;
      const auto at = destination.begin() + static_cast<std::ptrdiff_t>(to);
      const auto end = at + static_cast<std::ptrdiff_t>(size);
      REQUIRE(std::equal(at, end, begin));
      const auto untouched = [](std::byte byte) { return byte == std::byte{0xee}; };
      REQUIRE(std::all_of(destination.begin(), at, untouched));
      REQUIRE(std::all_of(end, destination.end(), untouched));
    }
  }
}
