// The choice of an algorithm at its borders, and the bounds of what it makes.
#include "collectives/select.hpp"

#include <doctest/doctest.h>

#include "collectives/chunk.hpp"
#include "collectives/plan_check.hpp"

namespace pyccl::collectives {

TEST_CASE("automatic: small is one shot, the rest is direct") {
  const auto chosen = [](Rank world, std::uint64_t bytes) {
    return choose_all_reduce({world, bytes / 2, 2}, Algorithm::automatic);
  };
  CHECK(chosen(2, one_shot_bytes_max) == Algorithm::one_shot);
  CHECK(chosen(2, one_shot_bytes_max + 2) == Algorithm::direct);
  CHECK(chosen(5, one_shot_bytes_max / 4) == Algorithm::one_shot);
  CHECK(chosen(5, one_shot_bytes_max / 4 + 2) == Algorithm::direct);
  CHECK(chosen(4, 1ull << 40) == Algorithm::direct);
  CHECK(chosen(1, 1ull << 40) == Algorithm::one_shot);
}

TEST_CASE("forced: obeyed at every size") {
  for (Algorithm forced : {Algorithm::ring, Algorithm::direct, Algorithm::one_shot}) {
    for (std::uint64_t count : {0ull, 10ull, 1ull << 34}) {
      CHECK(choose_all_reduce({3, count, 4}, forced) == forced);
    }
  }
}

TEST_CASE("names: as users write them") {
  CHECK(name_of(Algorithm::automatic) == "auto");
  CHECK(name_of(Algorithm::ring) == "ring");
  CHECK(name_of(Algorithm::direct) == "direct");
  CHECK(name_of(Algorithm::one_shot) == "one_shot");
}

TEST_CASE("direct_block: staging stays within its limit in every world") {
  for (Rank world = 1; world <= 300; ++world) {
    for (std::uint64_t element_bytes : {1, 2, 4, 8}) {
      const AllReduceShape shape{world, 1, element_bytes};
      const std::uint64_t share = direct_block(shape) / static_cast<std::uint64_t>(world);
      const auto others = static_cast<std::uint64_t>(world - 1);
      CHECK(share > 0);
      CHECK(share * element_bytes <= direct_share_bytes);
      for (Reach reach : {Reach::same_host, Reach::network}) {
        const auto blocks = static_cast<std::uint64_t>(direct_blocks_in_flight(shape, reach));
        CHECK(blocks >= 2);
        CHECK(blocks * others * share * element_bytes <= direct_staging_bytes_max);
      }
    }
  }
}

TEST_CASE("direct_block: the steps of the largest arrays still have 16-bit numbers") {
  for (Rank world : {2, 3, 24, 300}) {
    for (std::uint64_t count : {1ull << 34, 1ull << 40, 1ull << 48}) {
      const std::uint64_t block = direct_block({world, count, 2});
      CHECK(2 * (count / block + 1) <= 65535);
    }
  }
}

TEST_CASE("make_all_reduce: every algorithm's plans reduce") {
  for (Algorithm algorithm : {Algorithm::ring, Algorithm::direct, Algorithm::one_shot}) {
    std::vector<Plan> plans;
    const AllReduceShape shape{3, 50, 4};
    for (Rank self = 0; self < 3; ++self) {
      plans.push_back(make_all_reduce(algorithm, self, shape, Reach::network));
    }
    CHECK(check_all_reduce(plans, {50, 4, 1, false}).fault == "");
  }
}

TEST_CASE("chunk_of: chunks follow each other, differ by one at most, never shrink") {
  for (std::uint64_t size = 0; size < 60; ++size) {
    for (Rank parts = 1; parts < 9; ++parts) {
      std::uint64_t end = 100;
      for (Rank index = 0; index < parts; ++index) {
        const Range chunk = chunk_of({100, 100 + size}, parts, index);
        CHECK(chunk.begin == end);
        CHECK(chunk.size() - size / static_cast<std::uint64_t>(parts) <= 1);
        CHECK(chunk_of({100, 101 + size}, parts, index).size() >= chunk.size());
        end = chunk.end;
      }
      CHECK(end == 100 + size);
    }
  }
}

}  // namespace pyccl::collectives
