// Every all-reduce algorithm, proven for every world up to 24 ranks and odd element counts.
#include <doctest/doctest.h>

#include <bit>

#include "collectives/all_reduce_direct.hpp"
#include "collectives/all_reduce_halving_doubling.hpp"
#include "collectives/all_reduce_one_shot.hpp"
#include "collectives/all_reduce_recursive_doubling.hpp"
#include "collectives/all_reduce_ring.hpp"
#include "collectives/barrier.hpp"
#include "collectives/cases.hpp"

namespace pyccl::collectives {
namespace {

Rank power_of_two_up_to(Rank world) {
  Rank power = 1;
  while (power * 2 <= world) power *= 2;
  return power;
}

// Of `count` elements halved again and again among `power` ranks, what the block of `block` ranks
// that `self` is in has; the lower half gets what is odd.
std::uint64_t halved(std::uint64_t count, Rank power, Rank block, Rank self) {
  for (Rank size = power; size > block; size /= 2) {
    count = (count + (self % size < size / 2 ? 1 : 0)) / 2;
  }
  return count;
}

std::uint64_t halving_doubling_sent(std::uint64_t count, Rank world, Rank power, Rank self) {
  if (self >= power) return count;
  const std::uint64_t piece = halved(count, power, 1, self);
  std::uint64_t sent = count - piece;
  for (Rank block = 1; block < power; block *= 2) sent += halved(count, power, block, self);
  return sent + static_cast<std::uint64_t>(world - power) * piece;
}

}  // namespace

TEST_CASE("ring: proven in any order of the ring, and each rank sends the least bytes there are") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
      for (const RingOrder& ring : {RingOrder(world), shuffled_ring(world, count + 1)}) {
        CAPTURE(world);
        CAPTURE(count);
        const auto plans =
            plans_of(world, [&](Rank self) { return all_reduce_ring(self, ring, count); });
        if (world > 1 && count > 0) {
          CHECK(plans[0].steps.size() == 2 * static_cast<std::size_t>(world - 1));
        }
        const CheckReport report =
            check(all_reduce_task(world, count), plans, options_of(world, count));
        REQUIRE(report.fault == "");
        CHECK(report.staged_max <= 7);  // one segment, which is folded at once
        for (Rank place = 0; place < world; ++place) {
          const std::uint64_t spared =
              owned(count, world, ring.at(place + 1)) +
              (world > 1 ? owned(count, world, ring.at(place + 2)) : count);
          CHECK(report.sent[static_cast<std::size_t>(ring.at(place))] == 2 * count - spared);
        }
      }
    }
  }
}

TEST_CASE("direct: proven, bytes as forecast, no more blocks staged than allowed") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
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
        CHECK(plans[0].steps.size() == 2 * ((count + block - 1) / block));
        const CheckReport report =
            check(all_reduce_task(world, count), plans, options_of(world, count));
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
    for (std::uint64_t count : some_counts) {
      CAPTURE(world);
      CAPTURE(count);
      const auto plans =
          plans_of(world, [&](Rank self) { return all_reduce_one_shot(self, world, count); });
      CHECK(plans[0].steps.size() == (count > 0 ? 1u : 0u));
      const CheckReport report =
          check(all_reduce_task(world, count), plans, options_of(world, count));
      REQUIRE(report.fault == "");
      const std::uint64_t forecast = static_cast<std::uint64_t>(world - 1) * count;
      for (std::uint64_t sent : report.sent) CHECK(sent == forecast);
    }
  }
}

TEST_CASE("recursive doubling: proven in every world, bytes as forecast") {
  for (Rank world = 1; world <= world_max; ++world) {
    const Rank power = power_of_two_up_to(world);
    const auto rounds = static_cast<std::uint64_t>(std::countr_zero(static_cast<unsigned>(power)));
    for (std::uint64_t count : some_counts) {
      CAPTURE(world);
      CAPTURE(count);
      const auto plans = plans_of(
          world, [&](Rank self) { return all_reduce_recursive_doubling(self, world, count); });
      if (world > 1 && count > 0) {
        CHECK(plans[0].steps.size() == rounds + (power < world ? 2 : 0));
      }
      const CheckReport report =
          check(all_reduce_task(world, count), plans, options_of(world, count));
      REQUIRE(report.fault == "");
      for (Rank self = 0; self < world; ++self) {
        const bool speaks = self < power && self + power < world;
        const std::uint64_t times = self >= power ? 1 : rounds + (speaks ? 1 : 0);
        CHECK(report.sent[static_cast<std::size_t>(self)] == times * count);
        CHECK(plans[static_cast<std::size_t>(self)].partial_count <= rounds * count);
      }
    }
  }
}

TEST_CASE("halving and doubling: proven in every world, bytes as forecast") {
  for (Rank world = 1; world <= world_max; ++world) {
    const Rank power = power_of_two_up_to(world);
    for (std::uint64_t count : some_counts) {
      CAPTURE(world);
      CAPTURE(count);
      const auto plans = plans_of(
          world, [&](Rank self) { return all_reduce_halving_doubling(self, world, count); });
      const CheckReport report =
          check(all_reduce_task(world, count), plans, options_of(world, count));
      REQUIRE(report.fault == "");
      const auto beyond = static_cast<std::uint64_t>(world - power);
      const auto rounds =
          static_cast<std::uint64_t>(std::countr_zero(static_cast<unsigned>(power)));
      CHECK(report.staged_max <= count + rounds + beyond * halved(count, power, 1, 0));
      for (Rank self = 0; self < world; ++self) {
        const Plan& plan = plans[static_cast<std::size_t>(self)];
        CHECK(plan.partial_count <= count + rounds);
        CHECK_FALSE(plan.overwrites_unsent);
        CHECK(report.sent[static_cast<std::size_t>(self)] ==
              halving_doubling_sent(count, world, power, self));
      }
    }
  }
}

TEST_CASE("direct and one shot fold in the order of the ranks, so they give the same bits") {
  for (Rank world = 1; world <= world_max; ++world) {
    const Task task = all_reduce_task(world, 30);
    const auto expressions = [&](const std::function<Plan(Rank)>& plan_of) {
      return check(task, plans_of(world, plan_of), options_of(world, 30)).expressions;
    };
    const auto once = expressions([&](Rank self) { return all_reduce_one_shot(self, world, 30); });
    CHECK(once == expressions([&](Rank self) { return all_reduce_direct(self, world, 30, 8, 2); }));
    const bool by_pairs = once == expressions([&](Rank self) {
                            return all_reduce_recursive_doubling(self, world, 30);
                          });
    CHECK(by_pairs == (world <= 2));
  }
}

TEST_CASE("order of execution: many seeds on a few shapes") {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const CheckOptions options{3, seed, true};
    CAPTURE(seed);
    const auto fault = [&](Rank world, const std::function<Plan(Rank)>& plan_of) {
      return check(all_reduce_task(world, 61), plans_of(world, plan_of), options).fault;
    };
    CHECK(fault(5, [&](Rank self) { return all_reduce_ring(self, shuffled_ring(5, seed), 61); }) ==
          "");
    CHECK(fault(5, [](Rank self) { return all_reduce_one_shot(self, 5, 61); }) == "");
    for (Rank world : {7, 8}) {
      CHECK(fault(world,
                  [&](Rank self) { return all_reduce_recursive_doubling(self, world, 61); }) == "");
      CHECK(fault(world, [&](Rank self) { return all_reduce_halving_doubling(self, world, 61); }) ==
            "");
    }
    const auto direct = plans_of(5, [](Rank self) { return all_reduce_direct(self, 5, 61, 8, 2); });
    const CheckReport report = check(all_reduce_task(5, 61), direct, options);
    CHECK(report.fault == "");
    CHECK(report.staged_max <= 2 * 4 * 2);
  }
}

TEST_CASE("barrier: moves nothing, for its commit is what waits") {
  CHECK(barrier().steps.empty());
}

}  // namespace pyccl::collectives
