// Reduce and reduce-scatter: every algorithm, proven for every world up to 24 ranks.
#include <doctest/doctest.h>

#include "collectives/all_reduce_one_shot.hpp"
#include "collectives/cases.hpp"
#include "collectives/reduce_binomial.hpp"
#include "collectives/reduce_chain.hpp"
#include "collectives/reduce_direct.hpp"
#include "collectives/reduce_scatter_direct.hpp"
#include "collectives/reduce_scatter_ring.hpp"

namespace pyccl::collectives {
namespace {

// What all ranks but the root send, who sends nothing.
void check_sent(const CheckReport& report, Rank root, std::uint64_t count) {
  for (Rank self = 0; self < static_cast<Rank>(report.sent.size()); ++self) {
    CHECK(report.sent[static_cast<std::size_t>(self)] == (self == root ? 0 : count));
  }
}

std::size_t credits_in(const std::vector<Plan>& plans) {
  std::size_t credits = 0;
  for (const Plan& plan : plans) {
    for (const Step& step : plan.steps) {
      for (const Send& send : step.sends) credits += send.source == Source::credit ? 1 : 0;
    }
  }
  return credits;
}

}  // namespace

TEST_CASE("reduce, binomial and chain: proven for every root, bytes as forecast") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
      for (Rank root : roots_of(world)) {
        CAPTURE(world);
        CAPTURE(count);
        CAPTURE(root);
        const Task task = rooted_task(Kind::reduce, world, root, count);
        const auto tree =
            plans_of(world, [&](Rank self) { return reduce_binomial(self, world, root, count); });
        const CheckReport by_tree = check(task, tree, options_of(world, count));
        REQUIRE(by_tree.fault == "");
        check_sent(by_tree, root, count);

        const RingOrder ring = shuffled_ring(world, count);
        const auto chain =
            plans_of(world, [&](Rank self) { return reduce_chain(self, ring, root, count); });
        const CheckReport by_chain = check(task, chain, options_of(world, count));
        REQUIRE(by_chain.fault == "");
        CHECK(by_chain.staged_max <= 7);  // one segment, which is folded at once
        check_sent(by_chain, root, count);
      }
    }
  }
}

TEST_CASE("reduce, direct: proven for every root, bytes as forecast, staging within its bound") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
      for (std::uint64_t block : {5, 24, 100, 1000}) {
        if (count / block > 60) continue;
        const Rank root = static_cast<Rank>((count + block) % static_cast<std::uint64_t>(world));
        CAPTURE(world);
        CAPTURE(count);
        CAPTURE(block);
        const auto plans = plans_of(world, [&](Rank self) {
          return reduce_direct(self, world, root, count, block, 1 + self % 3);
        });
        const CheckReport report =
            check(rooted_task(Kind::reduce, world, root, count), plans, options_of(world, count));
        REQUIRE(report.fault == "");
        const auto others = static_cast<std::uint64_t>(world - 1);
        CHECK(report.staged_max <= 3 * others * owned(block, world, 0) + 7);
        for (Rank self = 0; self < world; ++self) {
          const std::uint64_t mine =
              count / block * owned(block, world, self) + owned(count % block, world, self);
          const std::uint64_t forecast = self == root ? count - mine : count;
          CHECK(report.sent[static_cast<std::size_t>(self)] == forecast);
        }
      }
    }
  }
}

TEST_CASE("reduce-scatter, ring: proven for uneven shares in any order of the ring") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
      for (const Counts& shares : shares_of(world, count)) {
        CAPTURE(world);
        CAPTURE(count);
        const RingOrder ring = shuffled_ring(world, count);
        const auto plans =
            plans_of(world, [&](Rank self) { return reduce_scatter_ring(self, ring, shares); });
        const CheckReport report =
            check(shared_task(Kind::reduce_scatter, shares), plans, options_of(world, count));
        REQUIRE(report.fault == "");
        CHECK(report.staged_max <= 7);
        for (std::size_t self = 0; self < shares.size(); ++self) {
          CHECK(report.sent[self] == count - shares[self]);
        }
      }
    }
  }
}

TEST_CASE("reduce-scatter, direct: proven for uneven shares, staging within its bound") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
      for (const Counts& shares : shares_of(world, count)) {
        for (std::uint64_t block : {1, 9, 1000}) {
          if (count / block > 120) continue;
          CAPTURE(world);
          CAPTURE(count);
          CAPTURE(block);
          const auto plans = plans_of(world, [&](Rank self) {
            return reduce_scatter_direct(self, shares, block, 1 + self % 3);
          });
          const CheckReport report =
              check(shared_task(Kind::reduce_scatter, shares), plans, options_of(world, count));
          REQUIRE(report.fault == "");
          CHECK(report.staged_max <= 3 * static_cast<std::uint64_t>(world - 1) * block);
          if (block == 1000) CHECK(credits_in(plans) == 0);
          for (std::size_t self = 0; self < shares.size(); ++self) {
            CHECK(report.sent[self] == count - shares[self]);
          }
        }
      }
    }
  }
}

TEST_CASE("reduce-scatter, direct: the same bits as all-reduce in one shot") {
  for (Rank world = 1; world <= world_max; ++world) {
    const Counts shares = shares_of(world, 61)[1];
    const CheckReport report =
        check(shared_task(Kind::reduce_scatter, shares),
              plans_of(world, [&](Rank self) { return reduce_scatter_direct(self, shares, 9, 2); }),
              options_of(world, 61));
    CheckReport whole =
        check(all_reduce_task(world, 61),
              plans_of(world, [&](Rank self) { return all_reduce_one_shot(self, world, 61); }),
              options_of(world, 61));
    whole.expressions.resize(61);
    CHECK(report.expressions == whole.expressions);
  }
}

TEST_CASE("reductions in any order of execution: many seeds on a few shapes") {
  const Counts shares{9, 0, 17, 5, 30};
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const CheckOptions options{3, seed, true};
    CAPTURE(seed);
    const auto fault = [&](const Task& task, const std::function<Plan(Rank)>& plan_of) {
      return check(task, plans_of(task.world, plan_of), options).fault;
    };
    const Task reduce = rooted_task(Kind::reduce, 6, 4, 61);
    const RingOrder ring = shuffled_ring(6, seed);
    CHECK(fault(reduce, [](Rank self) { return reduce_binomial(self, 6, 4, 61); }) == "");
    CHECK(fault(reduce, [&](Rank self) { return reduce_chain(self, ring, 4, 61); }) == "");
    CHECK(fault(reduce, [](Rank self) { return reduce_direct(self, 6, 4, 61, 8, 2); }) == "");
    const Task scatter = shared_task(Kind::reduce_scatter, shares);
    const RingOrder small = shuffled_ring(5, seed);
    CHECK(fault(scatter, [&](Rank self) { return reduce_scatter_ring(self, small, shares); }) ==
          "");
    CHECK(fault(scatter, [&](Rank self) { return reduce_scatter_direct(self, shares, 4, 2); }) ==
          "");
  }
}

}  // namespace pyccl::collectives
