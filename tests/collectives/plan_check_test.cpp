// The test of the test: plans with one planted fault each, and the checker must find every one.
#include "collectives/plan_check.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "collectives/all_gather_direct.hpp"
#include "collectives/all_gather_ring.hpp"
#include "collectives/all_reduce_direct.hpp"
#include "collectives/all_reduce_halving_doubling.hpp"
#include "collectives/all_reduce_one_shot.hpp"
#include "collectives/all_reduce_recursive_doubling.hpp"
#include "collectives/all_reduce_ring.hpp"
#include "collectives/broadcast_chain.hpp"
#include "collectives/cases.hpp"
#include "collectives/reduce_direct.hpp"
#include "collectives/reduce_scatter_direct.hpp"
#include "collectives/reduce_scatter_ring.hpp"
#include "collectives/scatter_direct.hpp"

namespace pyccl::collectives {
namespace {

constexpr Rank world = 4;
constexpr std::uint64_t count = 40;
const Counts shares{7, 12, 0, 21};

// Plans and what they are to do.
struct Plans {
  Task task;
  std::vector<Plan> plans;
  Step& at(std::size_t rank, std::size_t step) { return plans[rank].steps[step]; }
};

Plans all_reduce(const std::function<Plan(Rank)>& plan_of) {
  return {all_reduce_task(world, count), plans_of(world, plan_of)};
}
Plans ring() {
  return all_reduce([](Rank self) { return all_reduce_ring(self, RingOrder(world), count); });
}
Plans direct() {
  return all_reduce([](Rank self) { return all_reduce_direct(self, world, count, 8, 2); });
}
Plans one_shot() {
  return all_reduce([](Rank self) { return all_reduce_one_shot(self, world, count); });
}
Plans doubling() {
  return all_reduce([](Rank self) { return all_reduce_recursive_doubling(self, world, count); });
}
Plans halving() {
  return all_reduce([](Rank self) { return all_reduce_halving_doubling(self, world, count); });
}
Plans scatter_sums() {
  return {shared_task(Kind::reduce_scatter, shares),
          plans_of(world, [](Rank self) { return reduce_scatter_direct(self, shares, 4, 1); })};
}
Plans ring_sums() {
  const RingOrder order(world);
  return {shared_task(Kind::reduce_scatter, shares),
          plans_of(world, [&](Rank self) { return reduce_scatter_ring(self, order, shares); })};
}
Plans reduce() {
  return {rooted_task(Kind::reduce, world, 1, count),
          plans_of(world, [](Rank self) { return reduce_direct(self, world, 1, count, 8, 1); })};
}
Plans gather() {
  return {shared_task(Kind::all_gather, shares),
          plans_of(world, [](Rank self) { return all_gather_direct(self, shares); })};
}
Plans gather_ring() {
  const RingOrder order(world);
  return {shared_task(Kind::all_gather, shares),
          plans_of(world, [&](Rank self) { return all_gather_ring(self, order, shares); })};
}
Plans chain() {
  const RingOrder order(world);
  return {rooted_task(Kind::broadcast, world, 0, count),
          plans_of(world, [&](Rank self) { return broadcast_chain(self, order, 0, count); })};
}
Plans scatter() {
  return {shared_task(Kind::scatter, shares, 1),
          plans_of(world, [](Rank self) { return scatter_direct(self, 1, shares); })};
}
Plans pair(const Plan& left, const Plan& right) {
  return {all_reduce_task(2, count), {left, right}};
}

// The fault that any of a few orders of execution brings to light.
std::string fault_of(const Plans& all, bool in_place = true) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const CheckReport report = check(all.task, all.plans, {4, seed, in_place});
    if (!report.fault.empty()) return report.fault;
  }
  return "";
}

std::uint64_t most_staged(const Plans& all) {
  std::uint64_t most = 0;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    most = std::max(most, check(all.task, all.plans, {4, seed, true}).staged_max);
  }
  return most;
}

void drop_waits(Plans& all) {
  for (Plan& plan : all.plans) {
    for (Step& step : plan.steps) {
      for (Send& send : step.sends) {
        if (reads_input(send.source)) send.after = no_step;
      }
    }
  }
}

// `words` where the fault has them, else the fault: so that a failed check shows what was found.
std::string found(const Plans& all, const std::string& words) {
  const std::string fault = fault_of(all);
  return fault.find(words) != std::string::npos ? words : "found instead: " + fault;
}

#define CHECK_FOUND(all, words) CHECK(found(all, words) == words)

}  // namespace

TEST_CASE("sound plans pass, so what the cases below find is what they planted") {
  for (const Plans& all : {ring(), direct(), one_shot(), doubling(), halving(), scatter_sums(),
                           ring_sums(), reduce(), gather(), gather_ring(), chain(), scatter()}) {
    CHECK(fault_of(all) == "");
    CHECK(fault_of(all, false) == "");
  }
}

TEST_CASE("found: a wrong index") {
  auto all = ring();
  all.at(1, 4).sends[0].range = all.at(1, 2).sends[0].range;
  CHECK_FOUND(all, "no earlier step makes");
  all = ring();
  all.at(1, 4).receives[0].range = all.at(1, 3).receives[0].range;
  CHECK_FOUND(all, "no earlier step makes");
  all = ring();
  all.at(2, 5).receives[0].range.end = count + 1;
  CHECK_FOUND(all, "no valid range");
  all = ring();
  --all.at(2, 5).receives[0].range.end;
  CHECK_FOUND(all, "another number of elements");
  all = ring();
  all.at(0, 1).folds[0].own_begin = 0;
  CHECK_FOUND(all, "different places");
  all = halving();
  all.at(2, 1).sends[0].range.begin -= 1;
  all.at(2, 1).sends[0].range.end -= 1;
  CHECK_FOUND(all, "different places");
  all = ring_sums();
  all.at(3, 2).folds[0].own_begin = count - 2;
  CHECK_FOUND(all, "no valid own range");
}

TEST_CASE("found: data at a wrong place, or another rank's") {
  auto all = gather();
  std::swap(all.at(2, 0).receives[0], all.at(2, 0).receives[1]);
  std::swap(all.at(2, 0).receives[0].from, all.at(2, 0).receives[1].from);
  CHECK_FOUND(all, "another number of elements");
  all = scatter();
  // Seven elements from the root's begin, as many as it sends and not those.
  all.at(1, 0).sends[1].range = {1, 8};
  CHECK_FOUND(all, "belongs elsewhere");
  all = gather();
  all.task.shares = {6, 6, 6, 6};
  all.plans = plans_of(world, [&](Rank self) { return all_gather_direct(self, all.task.shares); });
  std::swap(all.at(2, 0).receives[0].range, all.at(2, 0).receives[1].range);
  CHECK_FOUND(all, "another rank's");
  all = gather();
  all.at(1, 0).copies[0].begin -= 1;
  CHECK_FOUND(all, "a result overwrites an input still read");
  all = chain();
  all.at(0, 0).copies.clear();
  CHECK_FOUND(all, "an element of the result is missing");
}

TEST_CASE("found: a wrong partner") {
  auto all = ring();
  all.at(1, 1).sends[0].to = 3;
  CHECK_FOUND(all, "nobody takes");
  all = ring();
  all.at(0, 1).folds[0].order = {2, 0};
  CHECK_FOUND(all, "a source sends nothing");
  all = direct();
  all.at(0, 0).sends[0].to = all.at(0, 0).sends[1].to;
  CHECK_FOUND(all, "two sends to one rank");
  all = direct();
  all.at(0, 0).sends[0].to = 0;
  CHECK_FOUND(all, "a send to nobody");
  all = ring();
  all.at(1, 0).receives.push_back({0, all.at(1, 0).folds[0].range});
  CHECK_FOUND(all, "two transfers from one source");
}

TEST_CASE("found: a dropped transfer") {
  auto all = ring();
  all.at(3, 2).sends.clear();
  CHECK_FOUND(all, "a source sends nothing");
  all = ring();
  all.at(3, 5).receives.clear();
  CHECK_FOUND(all, "nobody takes");
  all = ring();
  all.at(0, 5).sends.clear();
  all.at(1, 5).receives.clear();
  CHECK_FOUND(all, "an element of the result is missing");
  all = direct();
  all.plans[2].steps.pop_back();
  CHECK_FOUND(all, "no such step");
  all = gather_ring();
  all.at(0, 0).receives.clear();
  all.at(3, 0).sends.clear();
  CHECK_FOUND(all, "no earlier step makes");
}

TEST_CASE("found: a wrong dependency") {
  auto all = ring();
  all.at(1, 2).sends[0].after = 1;
  CHECK_FOUND(all, "names a step");
  all = direct();
  all.at(1, 4).sends[0].after = 5;
  CHECK_FOUND(all, "waits for a later step");
  all = direct();
  all.at(1, 4).sends[0].after = 0;
  CHECK_FOUND(all, "a receive that is not there");
  all = chain();
  std::swap(all.at(1, 0).receives, all.at(1, 1).receives);
  std::swap(all.at(0, 0).sends, all.at(0, 1).sends);
  CHECK_FOUND(all, "no earlier step makes");
  all = doubling();
  all.at(1, 1).folds[0].own_begin = 4;
  all.plans[1].partial_count += 4;
  CHECK_FOUND(all, "no earlier step makes");
}

TEST_CASE("found: wrong credits") {
  auto all = scatter_sums();
  all.at(1, 1).sends[0].after = no_step;
  CHECK_FOUND(all, "a credit for nothing");
  all = scatter_sums();
  all.at(1, 1).sends[0].range = {0, 1};
  CHECK_FOUND(all, "a credit that moves something");
  all = scatter_sums();
  all.at(1, 1).sends[0].after = 1;
  CHECK_FOUND(all, "a credit for nothing");
  all = scatter_sums();
  all.at(1, 1).sends.erase(all.at(1, 1).sends.begin());
  CHECK_FOUND(all, "a source sends nothing");
  all = scatter_sums();
  all.at(1, 1).receives.pop_back();
  CHECK_FOUND(all, "nobody takes");
  // A credit for the very fold whose contribution waits for it.
  const Range half{0, count / 2};
  Plan owner;
  owner.steps = {{{{1, {}, Source::credit, 0}}, {}, {{half, {1}}}, {}}};
  Plan other;
  other.steps = {{{{0, half, Source::input, 0}}, {{0, {}}}, {}, {}}};
  CHECK_FOUND(pair(owner, other), "deadlock");
}

TEST_CASE("found: contributions that don't wait overrun the owner's staging") {
  auto all = direct();
  CHECK(most_staged(all) <= 2 * 3 * 2);
  drop_waits(all);
  CHECK(fault_of(all) == "");
  CHECK(most_staged(all) > 2 * 3 * 2);
  for (auto paced : {scatter_sums(), reduce()}) {
    const std::uint64_t bound = 3 * 4 + 4;
    CHECK(most_staged(paced) <= bound);
    drop_waits(paced);
    CHECK(fault_of(paced) == "");
    CHECK(most_staged(paced) > bound);
  }
}

TEST_CASE("found: wrong folds") {
  auto all = ring();
  all.at(1, 1).folds[0].order = {0};  // the own contribution is left out
  CHECK_FOUND(all, "a contribution is missing");
  all = one_shot();
  std::swap(all.at(2, 0).folds[0].order[0], all.at(2, 0).folds[0].order[1]);
  CHECK_FOUND(all, "different orders");
  all = doubling();
  std::swap(all.at(2, 1).folds[0].order[0], all.at(2, 1).folds[0].order[1]);
  CHECK_FOUND(all, "different orders");
  all = one_shot();
  all.at(2, 0).folds[0].order.push_back(1);
  CHECK_FOUND(all, "takes a rank twice");
  all = ring();
  all.at(1, 2).folds[0].final = false;
  CHECK_FOUND(all, "no earlier step makes");
  all = halving();
  all.at(0, 1).folds[0].own = Source::result;
  CHECK_FOUND(all, "no own contribution");
  all = halving();
  all.at(0, 1).folds[0].own = Source::input;
  for (Plan& plan : all.plans) plan.overwrites_unsent = true;
  CHECK_FOUND(all, "a contribution is missing");
}

TEST_CASE("found: weights that are missing, applied twice, or rounded at one rank only") {
  auto all = ring();
  all.at(2, 0).sends[0].source = Source::input;
  CHECK_FOUND(all, "weight");
  all = ring();
  all.at(2, 1).folds[0].plain = true;
  CHECK_FOUND(all, "weight");
  all = direct();
  all.plans[2].partial_count = count;
  all.at(2, 0).sends[0].source = Source::weighted_input;
  CHECK_FOUND(all, "weight");
  all = direct();
  all.at(2, 0).sends[0].source = Source::weighted_input;
  CHECK_FOUND(all, "has no place");
  all = one_shot();
  all.at(2, 0).folds[0].plain = false;
  CHECK_FOUND(all, "weight");
  // Both partners fold the same two inputs, but one of them after it was stored.
  const Fold fold{{0, count}, {0, 1}, true, false};
  Plan plan;
  plan.partial_count = count;
  plan.overwrites_unsent = true;
  plan.steps = {{{{1, {0, count}, Source::weighted_input, no_step}}, {}, {fold}, {}}};
  Plan other = plan;
  other.steps[0].sends[0].to = 0;
  CHECK_FOUND(pair(plan, other), "different orders");
}

TEST_CASE("found: partial sums that reach a result") {
  auto all = ring();
  for (std::size_t self = 0; self < world; ++self) {
    // All agree to end the reduction one hop too early.
    all.at(self, 1).folds[0].final = true;
    all.at(self, 2).sends[0].source = Source::result;
  }
  CHECK_FOUND(all, "a final value is folded again");
  all = one_shot();
  for (std::size_t self = 0; self < world; ++self) {
    Step& step = all.at(self, 0);
    step.receives.push_back({step.sends[0].to, {0, count}});
    std::erase(step.folds[0].order, step.sends[0].to);
  }
  CHECK_FOUND(all, "written twice");
  all = reduce();
  for (Step& step : all.plans[1].steps) {
    // The root takes the owners' sums as they are, so nobody divides them.
    for (const Fold& fold : step.folds) {
      if (fold.order.size() == 1) step.receives.push_back({fold.order[0], fold.range});
    }
    std::erase_if(step.folds, [](const Fold& fold) { return fold.order.size() == 1; });
  }
  CHECK_FOUND(all, "not final");
}

TEST_CASE("found: a contribution that arrives twice") {
  auto all = ring();
  for (std::size_t self = 0; self < world; ++self) {
    // The last hop goes on one too far: the chunk comes back to the rank that it started from.
    Step again = all.at(self, 2);
    again.sends[0].range = all.at(self, 2).folds[0].range;
    all.at(self, 2).folds[0].final = false;
    again.folds[0].range = all.at(self, 0).sends[0].range;
    again.folds[0].own_begin = again.folds[0].range.begin;
    all.plans[self].steps.resize(3);
    all.plans[self].steps.push_back(again);
  }
  CHECK_FOUND(all, "folded twice");
}

TEST_CASE("found: a range that is written while an earlier value of it may be under way") {
  auto all = one_shot();
  for (Plan& plan : all.plans) plan.steps.push_back(plan.steps[0]);
  CHECK_FOUND(all, "written twice");
  all = halving();
  for (Plan& plan : all.plans) plan.steps[1].folds[0].final = false;
  CHECK_FOUND(all, "no earlier step makes");
  all = doubling();
  for (Plan& plan : all.plans) {
    Fold again = plan.steps[1].folds[0];
    again.final = false;  // the second sum where the first one is still being sent
    plan.steps[1].folds[0] = again;
  }
  CHECK_FOUND(all, "written twice");
}

TEST_CASE("found: two sends that wait for each other") {
  const Range whole{0, count};
  Plan left;
  left.steps = {{{{1, whole, Source::input, 0}}, {{1, whole}}, {}, {}}};
  Plan right;
  right.steps = {{{{0, whole, Source::input, 0}}, {{0, whole}}, {}, {}}};
  CHECK_FOUND(pair(left, right), "deadlock");
}

TEST_CASE("found: false claims about memory") {
  // A result overwrites a partial sum still under way.
  const Range whole{0, count};
  const Fold fold{whole, {0, 1}, true, false};
  Plan left;
  left.partial_count = count;
  left.partial_in_result = true;
  left.overwrites_unsent = true;
  left.steps = {{{{1, whole, Source::weighted_input, no_step}}, {}, {fold}, {}}};
  Plan right = left;
  right.steps[0].sends[0].to = 0;
  CHECK_FOUND(pair(left, right), "partial sum still read");

  auto all = doubling();
  for (Plan& plan : all.plans) plan.partial_in_result = true;
  all.plans[0].partial_count = count + 1;
  CHECK_FOUND(all, "do not fit into the result");

  // A partial sum where a result has been written.
  all = one_shot();
  for (Plan& plan : all.plans) {
    plan.steps.push_back(plan.steps[0]);
    plan.steps[1].folds[0].final = false;
    plan.partial_count = count;
    plan.partial_in_result = true;
  }
  CHECK_FOUND(all, "overwrites a result");

  // In place, a result that overwrites an input still under way.
  for (auto plans : {one_shot(), doubling()}) {
    for (Plan& plan : plans.plans) plan.overwrites_unsent = false;
    CHECK_FOUND(plans, "input still read");
    CHECK(fault_of(plans, false) == "");
  }
}

}  // namespace pyccl::collectives
