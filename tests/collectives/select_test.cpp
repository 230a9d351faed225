// The choice of an algorithm at its borders, and the plans that it leads to.
#include "collectives/select.hpp"

#include <doctest/doctest.h>

#include <limits>

#include "collectives/cases.hpp"
#include "collectives/chunk.hpp"
#include "collectives/cost.hpp"
#include "collectives/pacing.hpp"

namespace pyccl::collectives {
namespace {

constexpr Kind all_kinds[] = {Kind::all_reduce,     Kind::barrier,   Kind::all_gather,
                              Kind::all_to_all,     Kind::broadcast, Kind::reduce,
                              Kind::reduce_scatter, Kind::gather,    Kind::scatter,
                              Kind::send,           Kind::exchange};
constexpr Algorithm all_algorithms[] = {
    Algorithm::ring,
    Algorithm::direct,
    Algorithm::one_shot,
    Algorithm::recursive_doubling,
    Algorithm::halving_doubling,
    Algorithm::binomial,
    Algorithm::chain,
};

constexpr std::uint64_t KiB = 1024;
constexpr std::uint64_t MiB = 1024 * KiB;

const Links unknown;
const Links same_host{25, 3000, 3000, {}};
const Links lan{100, 1200, 1200, {}};
const Links wan{50'000, 100, 100, {}};
const Links slow_link{100, 30, 1200, {}};  // which the ring goes round

// An operation of so many bytes in all, shared evenly.
Shape shape_of_bytes(Kind kind, Rank world, std::uint64_t bytes) {
  Shape shape;
  shape.world = world;
  shape.element_bytes = 2;
  const bool shared = kind == Kind::all_gather || kind == Kind::reduce_scatter;
  if (shared) {
    shape.shares =
        Counts(static_cast<std::size_t>(world), bytes / 2 / static_cast<std::uint64_t>(world));
  } else {
    shape.count = bytes / 2;
  }
  return shape;
}

Algorithm chosen(Kind kind, Rank world, std::uint64_t bytes, const Links& links) {
  return choose(kind, shape_of_bytes(kind, world, bytes), Algorithm::automatic, links);
}

Task some_task(Kind kind, Rank world, std::uint64_t count) {
  Task task{kind, world, world / 2, count, shares_of(world, count)[1], {}};
  if (kind == Kind::send || kind == Kind::exchange || kind == Kind::all_to_all) {
    for (Rank from = 0; from < world; ++from) {
      Counts row;
      for (Rank to = 0; to < world; ++to) {
        const bool none =
            kind == Kind::send ? from != 0 || to != 1 : kind == Kind::exchange && from == to;
        row.push_back(none ? 0 : count % static_cast<std::uint64_t>(3 + from + 2 * to));
      }
      task.amounts.push_back(row);
    }
  }
  return task;
}

}  // namespace

TEST_CASE("all_reduce where links are not known, or on one host: one shot, then direct") {
  for (const Links& links : {unknown, same_host}) {
    const auto picked = [&](Rank world, std::uint64_t bytes) {
      return chosen(Kind::all_reduce, world, bytes, links);
    };
    for (Rank world : {2, 3, 4, 5, 8, 12, 16}) {
      CAPTURE(world);
      const std::uint64_t most = one_shot_bytes_max / static_cast<std::uint64_t>(world - 1);
      const std::uint64_t even = most / 2 * 2;
      CHECK(picked(world, 0) == Algorithm::one_shot);
      CHECK(picked(world, even) == Algorithm::one_shot);
      for (std::uint64_t bytes : {even + 2, 2 * even, 8 * even, 64 * even, 256 * MiB, MiB * MiB}) {
        CAPTURE(bytes);
        CHECK(picked(world, bytes) == Algorithm::direct);
      }
    }
    CHECK(picked(1, 1ull << 40) == Algorithm::one_shot);
    // Among many, transfers cost more than hops.
    CHECK(picked(64, 4 * KiB) == Algorithm::recursive_doubling);
    CHECK(picked(128, 64 * KiB) == Algorithm::halving_doubling);
  }
}

TEST_CASE("on one host direct beats the ring by about a quarter") {
  const Shape shape = shape_of_bytes(Kind::all_reduce, 4, 256 * MiB);
  const std::uint64_t ring = estimated_us(Kind::all_reduce, Algorithm::ring, shape, unknown);
  const std::uint64_t direct = estimated_us(Kind::all_reduce, Algorithm::direct, shape, unknown);
  CHECK(ring * 100 / direct >= 115);
  CHECK(ring * 100 / direct <= 135);
}

TEST_CASE("choices: one host, a LAN, a WAN, one slow link") {
  struct Row {
    Kind kind;
    Rank world;
    std::uint64_t bytes;
    Algorithm host, lan, wan, slow;
  };
  using A = Algorithm;
  using K = Kind;
  const Row rows[] = {
      {K::all_reduce, 4, 4 * KiB, A::one_shot, A::one_shot, A::one_shot, A::one_shot},
      {K::all_reduce, 4, 1 * MiB, A::direct, A::direct, A::direct, A::ring},
      {K::all_reduce, 4, 256 * MiB, A::direct, A::direct, A::direct, A::ring},
      {K::all_reduce, 16, 1 * MiB, A::direct, A::direct, A::direct, A::direct},
      {K::all_reduce, 16, 64 * MiB, A::direct, A::direct, A::direct, A::ring},
      {K::reduce_scatter, 4, 4 * KiB, A::direct, A::direct, A::direct, A::direct},
      {K::reduce_scatter, 8, 64 * MiB, A::direct, A::direct, A::direct, A::ring},
      {K::all_gather, 4, 4 * KiB, A::direct, A::direct, A::direct, A::direct},
      {K::all_gather, 8, 64 * MiB, A::direct, A::direct, A::direct, A::ring},
      {K::broadcast, 4, 4 * KiB, A::direct, A::direct, A::direct, A::direct},
      {K::broadcast, 24, 4 * KiB, A::direct, A::direct, A::direct, A::direct},
      {K::broadcast, 128, 4 * KiB, A::binomial, A::binomial, A::direct, A::direct},
      {K::broadcast, 16, 256 * KiB, A::binomial, A::binomial, A::direct, A::chain},
      {K::broadcast, 16, 256 * MiB, A::chain, A::chain, A::chain, A::chain},
      {K::reduce, 4, 4 * KiB, A::binomial, A::binomial, A::direct, A::direct},
      {K::reduce, 16, 256 * KiB, A::direct, A::direct, A::direct, A::direct},
      {K::reduce, 16, 256 * MiB, A::chain, A::chain, A::chain, A::chain},
      {K::all_to_all, 16, 256 * MiB, A::direct, A::direct, A::direct, A::direct},
  };
  for (const Row& row : rows) {
    CAPTURE(name_of(row.kind));
    CAPTURE(row.world);
    CAPTURE(row.bytes);
    CHECK(name_of(chosen(row.kind, row.world, row.bytes, unknown)) == name_of(row.host));
    CHECK(name_of(chosen(row.kind, row.world, row.bytes, same_host)) == name_of(row.host));
    CHECK(name_of(chosen(row.kind, row.world, row.bytes, lan)) == name_of(row.lan));
    CHECK(name_of(chosen(row.kind, row.world, row.bytes, wan)) == name_of(row.wan));
    CHECK(name_of(chosen(row.kind, row.world, row.bytes, slow_link)) == name_of(row.slow));
  }
}

TEST_CASE("choices: 16 peers that are 50 ms apart take the two hops of direct for 1 MiB") {
  for (std::uint32_t rate : {0, 10, 100, 1000, 10'000}) {
    CAPTURE(rate);
    CHECK(chosen(Kind::all_reduce, 16, 1 * MiB, {50'000, rate, rate, {}}) == Algorithm::direct);
  }
}

TEST_CASE("choices: a slow link that can't be avoided is no reason for the ring") {
  CHECK(chosen(Kind::all_reduce, 8, 64 * MiB, {100, 30, 30, {}}) == Algorithm::direct);
  CHECK(chosen(Kind::all_reduce, 8, 64 * MiB, {100, 1000, 1200, {}}) == Algorithm::direct);
}

TEST_CASE("choices: what only one rank knows does not count") {
  Shape shape = shape_of_bytes(Kind::all_to_all, 4, 0);
  shape.sends = {1, 2, 3, 4};
  Shape other = shape;
  other.sends = {1ull << 50, 0, 0, 0};
  other.receives = {5, 5, 5, 5};
  for (Kind kind : {Kind::all_to_all, Kind::send, Kind::exchange}) {
    CHECK(choose(kind, shape, Algorithm::automatic, lan) ==
          choose(kind, other, Algorithm::automatic, lan));
  }
}

TEST_CASE("choices: no count and no link makes the numbers wrap round") {
  constexpr std::uint32_t most = std::numeric_limits<std::uint32_t>::max();
  for (Kind kind :
       {Kind::all_reduce, Kind::reduce_scatter, Kind::all_gather, Kind::broadcast, Kind::reduce}) {
    for (Rank world : {2, 3, 300, 5000}) {
      for (const Links& links :
           {unknown, Links{most, 1, 1, {}}, Links{1, most, most, {}}, Links{0, 1, most, {}}}) {
        std::uint64_t last[8] = {};
        for (int bits = 10; bits <= 56; ++bits) {
          Shape shape = shape_of_bytes(kind, world, (1ull << bits) * 2);
          shape.element_bytes = 8;
          for (Algorithm algorithm : all_algorithms) {
            if (!offers(kind, algorithm)) continue;
            const std::uint64_t time = estimated_us(kind, algorithm, shape, links);
            CHECK(time >= last[static_cast<int>(algorithm)]);
            last[static_cast<int>(algorithm)] = time;
          }
        }
      }
    }
    CHECK(chosen(kind, 8, 1ull << 57, slow_link) ==
          (kind == Kind::broadcast || kind == Kind::reduce ? Algorithm::chain : Algorithm::ring));
  }
}

TEST_CASE("forced: obeyed at every size") {
  for (Kind kind : all_kinds) {
    for (Algorithm forced : all_algorithms) {
      if (!offers(kind, forced)) continue;
      for (std::uint64_t bytes : {0ull, 10ull, 1ull << 34}) {
        CHECK(choose(kind, shape_of_bytes(kind, 3, bytes), forced, wan) == forced);
      }
    }
  }
}

TEST_CASE("offers: what there is, by the names that users write") {
  CHECK(algorithms_of(Kind::all_reduce) ==
        "one_shot, direct, recursive_doubling, halving_doubling, ring");
  CHECK(algorithms_of(Kind::reduce_scatter) == "direct, ring");
  CHECK(algorithms_of(Kind::all_gather) == "direct, ring");
  CHECK(algorithms_of(Kind::broadcast) == "direct, binomial, chain");
  CHECK(algorithms_of(Kind::reduce) == "direct, binomial, chain");
  for (Kind kind :
       {Kind::barrier, Kind::all_to_all, Kind::gather, Kind::scatter, Kind::send, Kind::exchange}) {
    CHECK(algorithms_of(kind) == "direct");
  }
  for (Kind kind : all_kinds) {
    CHECK(offers(kind, Algorithm::automatic));
    CHECK(offers(kind, chosen(kind, 3, 100, unknown)));
    for (Algorithm algorithm : all_algorithms) {
      const bool named =
          (", " + algorithms_of(kind) + ",").find(", " + std::string(name_of(algorithm)) + ",") !=
          std::string::npos;
      CHECK(offers(kind, algorithm) == named);
    }
  }
  CHECK(name_of(Algorithm::automatic) == "auto");
  CHECK(name_of(Kind::all_to_all) == "all_to_all");
  CHECK(name_of(Kind::exchange) == "exchange");
}

TEST_CASE("make_plan: every algorithm of every collective does its task, alone and with others") {
  Links links;
  for (Rank world = 1; world <= world_max; ++world) {
    links.ring.clear();
    for (Rank place = 0; place < world; ++place) links.ring.push_back((world - place) % world);
    for (Kind kind : all_kinds) {
      if ((kind == Kind::send || kind == Kind::exchange) && world > 2) continue;
      for (Algorithm algorithm : all_algorithms) {
        if (!offers(kind, algorithm)) continue;
        for (std::uint64_t count : {0, 5, 97}) {
          CAPTURE(name_of(kind));
          CAPTURE(name_of(algorithm));
          CAPTURE(world);
          CAPTURE(count);
          const Task task = some_task(kind, world, count);
          const auto plans = plans_of(world, [&](Rank self) {
            return make_plan(kind, algorithm, self, shape_of(task, self, 4), links,
                             self % 2 == 0 ? Reach::network : Reach::same_host);
          });
          CHECK(check(task, plans, options_of(world, count)).fault == "");
        }
      }
    }
  }
}

TEST_CASE("pacing: staging stays within its limit in every world") {
  for (Rank world = 1; world <= 300; ++world) {
    for (std::uint64_t element_bytes : {1, 2, 4, 8}) {
      const std::uint64_t share = direct_share(world, element_bytes, 1);
      const auto others = static_cast<std::uint64_t>(world - 1);
      CHECK(share > 0);
      CHECK(share * element_bytes <= direct_share_bytes);
      for (Reach reach : {Reach::same_host, Reach::network}) {
        const auto blocks =
            static_cast<std::uint64_t>(direct_blocks_in_flight(world, element_bytes, share, reach));
        CHECK(blocks >= 2);
        CHECK(blocks * others * share * element_bytes <= direct_staging_bytes_max);
      }
    }
  }
}

TEST_CASE("pacing: the steps of the largest arrays still have 16-bit numbers") {
  for (Rank world : {2, 3, 24}) {
    for (std::uint64_t count : {1ull << 40, 1ull << 56}) {
      Shape shape = shape_of_bytes(Kind::all_reduce, world, 2 * count);
      shape.shares = Counts(static_cast<std::size_t>(world), 1);
      shape.shares[0] = count;
      for (Kind kind : {Kind::all_reduce, Kind::reduce, Kind::reduce_scatter}) {
        const Plan plan = make_plan(kind, Algorithm::direct, 1, shape, unknown, Reach::network);
        CHECK(plan.steps.size() < 65536);
      }
    }
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
