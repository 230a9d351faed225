// Every all-reduce algorithm, proven for every world up to 24 ranks and odd element counts.
#include <doctest/doctest.h>

#include <functional>

#include "collectives/all_reduce_direct.hpp"
#include "collectives/all_reduce_one_shot.hpp"
#include "collectives/all_reduce_ring.hpp"
#include "collectives/barrier.hpp"
#include "collectives/plan_check.hpp"

namespace pyccl::collectives {
namespace {

constexpr Rank world_max = 24;
constexpr std::uint64_t counts[] = {0, 1, 2, 7, 64, 97, 1000};

std::vector<Plan> plans_of(Rank world, const std::function<Plan(Rank)>& plan_of) {
  std::vector<Plan> plans;
  for (Rank self = 0; self < world; ++self) plans.push_back(plan_of(self));
  return plans;
}

// Elements that rank `self` owns of a block, by a way of its own: ceil((size - self) / world).
std::uint64_t owned(std::uint64_t size, Rank world, Rank self) {
  const auto place = static_cast<std::uint64_t>(self);
  const auto ranks = static_cast<std::uint64_t>(world);
  return size > place ? (size - place + ranks - 1) / ranks : 0;
}

CheckOptions options_of(Rank world, std::uint64_t count, bool in_place) {
  const std::uint64_t seed = static_cast<std::uint64_t>(world) * 1009 + count;
  return {count, count > 500 ? 7ull : 4ull, seed, in_place};
}

}  // namespace

TEST_CASE("ring: proven, in place, and each rank sends the least bytes there are") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : counts) {
      CAPTURE(world);
      CAPTURE(count);
      const auto plans =
          plans_of(world, [&](Rank self) { return all_reduce_ring(self, world, count); });
      if (world > 1 && count > 0) CHECK(plans[0].size() == 2 * static_cast<std::size_t>(world - 1));
      const CheckReport report = check_all_reduce(plans, options_of(world, count, true));
      REQUIRE(report.fault == "");
      CHECK(report.staged_max <= 7);  // one segment, which is folded at once
      for (Rank self = 0; self < world; ++self) {
        const std::uint64_t spared =
            owned(count, world, (self + 1) % world) + owned(count, world, (self + 2) % world);
        CHECK(report.sent[static_cast<std::size_t>(self)] == 2 * count - spared);
      }
    }
  }
}

TEST_CASE("direct: proven, in place, bytes as forecast, no more blocks staged than allowed") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : counts) {
      for (std::uint64_t block : {1, 5, 24, 100, 1000}) {
        // Thousands of steps of one element prove nothing that a hundred don't.
        if (count / block > 100) continue;
        CAPTURE(world);
        CAPTURE(count);
        CAPTURE(block);
        // Each rank paces itself as it likes.
        const auto plans = plans_of(world, [&](Rank self) {
          return all_reduce_direct(self, world, count, block, 1 + self % 3);
        });
        CHECK(plans[0].size() == 2 * ((count + block - 1) / block));
        const CheckReport report = check_all_reduce(plans, options_of(world, count, true));
        REQUIRE(report.fault == "");
        const auto others = static_cast<std::uint64_t>(world - 1);
        CHECK(report.staged_max <= 3 * others * owned(block, world, 0));
        for (Rank self = 0; self < world; ++self) {
          const std::uint64_t full = count / block;
          const std::uint64_t mine =
              full * owned(block, world, self) + owned(count % block, world, self);
          CHECK(report.sent[static_cast<std::size_t>(self)] == count - mine + others * mine);
        }
      }
    }
  }
}

TEST_CASE("one shot: proven, one step") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : counts) {
      CAPTURE(world);
      CAPTURE(count);
      const auto plans =
          plans_of(world, [&](Rank self) { return all_reduce_one_shot(self, world, count); });
      CHECK(plans[0].size() == (count > 0 ? 1u : 0u));
      const CheckReport report = check_all_reduce(plans, options_of(world, count, false));
      REQUIRE(report.fault == "");
      const std::uint64_t forecast = static_cast<std::uint64_t>(world - 1) * count;
      for (std::uint64_t sent : report.sent) CHECK(sent == forecast);
    }
  }
}

TEST_CASE("order of execution: many seeds on a few shapes") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const CheckOptions options{61, 3, seed, true};
    CAPTURE(seed);
    const auto ring = plans_of(5, [](Rank self) { return all_reduce_ring(self, 5, 61); });
    CHECK(check_all_reduce(ring, options).fault == "");
    const auto direct = plans_of(5, [](Rank self) { return all_reduce_direct(self, 5, 61, 8, 2); });
    const CheckReport report = check_all_reduce(direct, options);
    CHECK(report.fault == "");
    CHECK(report.staged_max <= 2 * 4 * 2);
  }
}

TEST_CASE("barrier: moves nothing, for its commit is what waits") { CHECK(barrier().empty()); }

}  // namespace pyccl::collectives
