// The collectives that fold nothing: every algorithm, proven for every world up to 24 ranks.
#include <doctest/doctest.h>

#include "collectives/all_gather_direct.hpp"
#include "collectives/all_gather_ring.hpp"
#include "collectives/all_to_all_direct.hpp"
#include "collectives/binomial.hpp"
#include "collectives/broadcast_binomial.hpp"
#include "collectives/broadcast_chain.hpp"
#include "collectives/broadcast_direct.hpp"
#include "collectives/cases.hpp"
#include "collectives/gather_direct.hpp"
#include "collectives/scatter_direct.hpp"

namespace pyccl::collectives {
namespace {

// A few hundred pairs, some of which have nothing for each other.
std::vector<Counts> some_amounts(Rank world, std::uint64_t most) {
  Prng random(static_cast<std::uint64_t>(world) * 7 + most);
  std::vector<Counts> amounts;
  for (Rank from = 0; from < world; ++from) {
    Counts row;
    for (Rank to = 0; to < world; ++to) {
      row.push_back(random.chance(1, 4) ? 0 : random.below(most + 1));
    }
    amounts.push_back(row);
  }
  return amounts;
}

std::vector<Plan> pair_plans(const Task& task) {
  return plans_of(task.world, [&](Rank self) {
    const Shape shape = shape_of(task, self, 4);
    return all_to_all_direct(self, task.world, shape.sends, shape.receives);
  });
}

}  // namespace

TEST_CASE("broadcast: proven for every root, bytes as forecast, nothing staged") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
      for (Rank root : roots_of(world)) {
        CAPTURE(world);
        CAPTURE(count);
        CAPTURE(root);
        const auto sent = [&](const std::function<Plan(Rank)>& plan_of) {
          const CheckReport report = check(rooted_task(Kind::broadcast, world, root, count),
                                           plans_of(world, plan_of), options_of(world, count));
          REQUIRE(report.fault == "");
          CHECK(report.staged_max == 0);
          return report.sent;
        };
        const RingOrder ring = shuffled_ring(world, count);
        const auto once =
            sent([&](Rank self) { return broadcast_direct(self, world, root, count); });
        const auto chain =
            sent([&](Rank self) { return broadcast_chain(self, ring, root, count); });
        const auto tree =
            sent([&](Rank self) { return broadcast_binomial(self, world, root, count); });
        for (Rank self = 0; self < world; ++self) {
          const auto rank = static_cast<std::size_t>(self);
          CHECK(once[rank] == (self == root ? static_cast<std::uint64_t>(world - 1) * count : 0));
          CHECK(chain[rank] == (ring.at(ring.place_of(self) + 1) == root ? 0 : count));
          // Twice as many have it each round; node d gets it in the round of its lowest bit.
          std::uint64_t children = 0;
          const Rank node = (self - root + world) % world;
          for (Rank bit = 1; bit < world && node % (2 * bit) == 0; bit *= 2) {
            if (node + bit < world) ++children;
          }
          CHECK(tree[rank] == children * count);
        }
      }
    }
  }
}

TEST_CASE("the binomial tree: every node has one parent, one round ahead of it") {
  for (Rank world = 1; world <= 70; ++world) {
    const BinomialTree tree(world, world / 3);
    std::vector<int> found(static_cast<std::size_t>(world));
    for (Rank node = 0; node < world; ++node) {
      CHECK(tree.node_of(tree.rank_of(node)) == node);
      for (Rank child : tree.children(node)) {
        CHECK(tree.parent(child) == node);
        CHECK(tree.height(child) < tree.height(node));
        ++found[static_cast<std::size_t>(child)];
      }
    }
    for (Rank node = 0; node < world; ++node) {
      CHECK(found[static_cast<std::size_t>(node)] == (node == 0 ? 0 : 1));
    }
    CHECK(tree.node_of(world / 3) == 0);
  }
}

TEST_CASE("all-gather: proven for uneven shares, in place, bytes as forecast") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
      for (const Counts& shares : shares_of(world, count)) {
        CAPTURE(world);
        CAPTURE(count);
        const Task task = shared_task(Kind::all_gather, shares);
        const RingOrder ring = shuffled_ring(world, count);
        const auto once =
            check(task, plans_of(world, [&](Rank self) { return all_gather_direct(self, shares); }),
                  options_of(world, count));
        const auto round = check(
            task, plans_of(world, [&](Rank self) { return all_gather_ring(self, ring, shares); }),
            options_of(world, count));
        REQUIRE(once.fault == "");
        REQUIRE(round.fault == "");
        CHECK(once.staged_max + round.staged_max == 0);
        for (Rank self = 0; self < world; ++self) {
          const auto rank = static_cast<std::size_t>(self);
          const auto next = static_cast<std::size_t>(ring.at(ring.place_of(self) + 1));
          CHECK(once.sent[rank] == static_cast<std::uint64_t>(world - 1) * shares[rank]);
          CHECK(round.sent[rank] == count - shares[next]);
        }
      }
    }
  }
}

TEST_CASE("gather and scatter: proven for every root and uneven shares, bytes as forecast") {
  for (Rank world = 1; world <= world_max; ++world) {
    for (std::uint64_t count : some_counts) {
      for (const Counts& shares : shares_of(world, count)) {
        for (Rank root : roots_of(world)) {
          CAPTURE(world);
          CAPTURE(count);
          CAPTURE(root);
          const auto gathered =
              check(shared_task(Kind::gather, shares, root),
                    plans_of(world, [&](Rank self) { return gather_direct(self, root, shares); }),
                    options_of(world, count));
          const auto scattered =
              check(shared_task(Kind::scatter, shares, root),
                    plans_of(world, [&](Rank self) { return scatter_direct(self, root, shares); }),
                    options_of(world, count));
          REQUIRE(gathered.fault == "");
          REQUIRE(scattered.fault == "");
          for (Rank self = 0; self < world; ++self) {
            const auto rank = static_cast<std::size_t>(self);
            CHECK(gathered.sent[rank] == (self == root ? 0 : shares[rank]));
            CHECK(scattered.sent[rank] == (self == root ? count - shares[rank] : 0));
          }
        }
      }
    }
  }
}

TEST_CASE("all-to-all: proven for equal amounts and others, bytes as forecast") {
  for (Rank world = 1; world <= world_max; ++world) {
    const auto ranks = static_cast<std::size_t>(world);
    for (const std::vector<Counts>& amounts : {std::vector<Counts>(ranks, Counts(ranks, 0)),
                                               std::vector<Counts>(ranks, Counts(ranks, 3)),
                                               some_amounts(world, 2), some_amounts(world, 40)}) {
      CAPTURE(world);
      const Task task{Kind::all_to_all, world, 0, 0, {}, amounts};
      const auto report = check(task, pair_plans(task), options_of(world, 40));
      REQUIRE(report.fault == "");
      for (std::size_t self = 0; self < ranks; ++self) {
        CHECK(report.sent[self] == sum_of(amounts[self]) - amounts[self][self]);
      }
    }
  }
}

TEST_CASE("send and exchange: two ranks, any amounts") {
  for (std::uint64_t there : {0, 1, 97}) {
    const Task send{Kind::send, 2, 0, 0, {}, {{0, there}, {0, 0}}};
    const auto sent = check(send, pair_plans(send), {4, 1, true});
    CHECK(sent.fault == "");
    CHECK(sent.sent == Counts({there, 0}));
    for (std::uint64_t back : {0, 1, 97}) {
      const Task exchange{Kind::exchange, 2, 0, 0, {}, {{0, there}, {back, 0}}};
      const auto exchanged = check(exchange, pair_plans(exchange), {4, 1, true});
      CHECK(exchanged.fault == "");
      CHECK(exchanged.sent == Counts({there, back}));
    }
  }
  CHECK(all_to_all_direct(1, 2, {}, {5, 0}).steps[0].receives.size() == 1);
}

TEST_CASE("moves in any order of execution: many seeds on a few shapes") {
  const Counts shares{9, 0, 17, 5, 30};
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    const CheckOptions options{3, seed, true};
    CAPTURE(seed);
    const auto fault = [&](const Task& task, const std::function<Plan(Rank)>& plan_of) {
      return check(task, plans_of(task.world, plan_of), options).fault;
    };
    const RingOrder ring = shuffled_ring(5, seed);
    const Task broadcast = rooted_task(Kind::broadcast, 5, 3, 61);
    CHECK(fault(broadcast, [](Rank self) { return broadcast_binomial(self, 5, 3, 61); }) == "");
    CHECK(fault(broadcast, [&](Rank self) { return broadcast_chain(self, ring, 3, 61); }) == "");
    const Task gather = shared_task(Kind::all_gather, shares);
    CHECK(fault(gather, [&](Rank self) { return all_gather_direct(self, shares); }) == "");
    CHECK(fault(gather, [&](Rank self) { return all_gather_ring(self, ring, shares); }) == "");
    const Task pairs{Kind::all_to_all, 5, 0, 0, {}, some_amounts(5, seed)};
    CHECK(check(pairs, pair_plans(pairs), options).fault == "");
  }
}

}  // namespace pyccl::collectives
