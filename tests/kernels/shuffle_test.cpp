// Shuffled bytes: where each of them goes, and that all come back.
#include <doctest/doctest.h>

#include "base/prng.hpp"
#include "kernels/shuffle.hpp"

namespace pyccl::kernels {

TEST_CASE("shuffle: first bytes first, and what is no whole number stays") {
  const Bytes from{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}, std::byte{5}};
  Bytes to(5);
  shuffle(from, 2, to);
  CHECK(to == Bytes{std::byte{1}, std::byte{3}, std::byte{2}, std::byte{4}, std::byte{5}});
}

TEST_CASE("shuffle: back and forth at every width and around every size") {
  Prng prng(3);
  for (unsigned width = 1; width <= shuffle_width_max; ++width) {
    for (std::size_t size = 0; size < 300; size += 1 + prng.below(7)) {
      Bytes from(size);
      for (std::byte& byte : from) byte = static_cast<std::byte>(prng.below(256));
      Bytes shuffled(size);
      Bytes back(size);
      shuffle(from, width, shuffled);
      const std::size_t count = size / width;
      for (std::size_t i = 0; i < count * width; ++i) {
        REQUIRE(shuffled[i % width * count + i / width] == from[i]);
      }
      unshuffle(shuffled, width, back);
      CHECK(back == from);
    }
  }
}

}  // namespace pyccl::kernels
