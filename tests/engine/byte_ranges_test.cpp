// A set of byte ranges against a plain array of flags.
#include "engine/byte_ranges.hpp"

#include <doctest/doctest.h>

#include <vector>

#include "base/prng.hpp"

using namespace pyccl;
using namespace pyccl::engine;

TEST_CASE("byte ranges: like an array of flags") {
  constexpr std::uint64_t size = 40;
  for (std::uint64_t seed = 1; seed <= 300; ++seed) {
    Prng prng(seed);
    ByteRanges ranges;
    std::vector<bool> flags(size);
    for (int round = 0; round < 12; ++round) {
      const std::uint64_t begin = prng.below(size);
      const ByteRange added{begin, begin + prng.below(std::min<std::uint64_t>(size - begin, 9))};
      ranges.add(added);
      for (std::uint64_t i = added.begin; i < added.end; ++i) flags[i] = true;

      const std::uint64_t from = prng.below(size - 1);
      const ByteRange asked{from, from + 1 + prng.below(size - from)};
      std::uint64_t set = 0;
      std::vector<bool> gaps(size);
      for (std::uint64_t i = asked.begin; i < asked.end; ++i) set += flags[i] ? 1 : 0;
      ranges.for_each_gap(asked, [&](ByteRange gap) {
        CHECK(gap.size() > 0);
        for (std::uint64_t i = gap.begin; i < gap.end; ++i) gaps[i] = true;
      });
      CHECK(ranges.covers(asked) == (set == asked.size()));
      CHECK(ranges.meets(asked) == (set > 0));
      for (std::uint64_t i = asked.begin; i < asked.end; ++i) CHECK(gaps[i] != flags[i]);
    }
    std::vector<bool> all(size);
    ranges.for_each([&](ByteRange range) {
      for (std::uint64_t i = range.begin; i < range.end; ++i) all[i] = true;
    });
    CHECK(all == flags);
  }
}
