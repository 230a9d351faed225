// The test of the test: plans with one planted fault each, and the checker must find every one.
#include "collectives/plan_check.hpp"

#include <doctest/doctest.h>

#include <algorithm>

#include "base/prng.hpp"
#include "collectives/all_reduce_direct.hpp"
#include "collectives/all_reduce_one_shot.hpp"
#include "collectives/all_reduce_ring.hpp"

namespace pyccl::collectives {
namespace {

constexpr Rank world = 4;
constexpr std::uint64_t count = 40;

std::vector<Plan> ring() {
  std::vector<Plan> plans;
  for (Rank self = 0; self < world; ++self) plans.push_back(all_reduce_ring(self, world, count));
  return plans;
}

std::vector<Plan> direct() {
  std::vector<Plan> plans;
  for (Rank self = 0; self < world; ++self) {
    plans.push_back(all_reduce_direct(self, world, count, 8, 2));
  }
  return plans;
}

std::vector<Plan> one_shot() {
  std::vector<Plan> plans;
  for (Rank self = 0; self < world; ++self) {
    plans.push_back(all_reduce_one_shot(self, world, count));
  }
  return plans;
}

// The fault that any of a few orders of execution brings to light.
std::string fault_of(const std::vector<Plan>& plans, bool in_place = false) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const CheckReport report = check_all_reduce(plans, {count, 4, seed, in_place});
    if (!report.fault.empty()) return report.fault;
  }
  return "";
}

std::uint64_t most_staged(const std::vector<Plan>& plans) {
  std::uint64_t most = 0;
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    most = std::max(most, check_all_reduce(plans, {count, 4, seed, false}).staged_max);
  }
  return most;
}

// `words` where the fault has them, else the fault: so that a failed check shows what was found.
std::string found(const std::vector<Plan>& plans, const std::string& words, bool in_place = false) {
  const std::string fault = fault_of(plans, in_place);
  return fault.find(words) != std::string::npos ? words : "found instead: " + fault;
}

#define CHECK_FOUND(plans, words) CHECK(found(plans, words) == words)

}  // namespace

TEST_CASE("sound plans pass, so what the cases below find is what they planted") {
  CHECK(fault_of(ring()) == "");
  CHECK(fault_of(direct()) == "");
  CHECK(fault_of(one_shot()) == "");
}

TEST_CASE("found: a wrong index") {
  auto plans = ring();
  plans[1][4].sends[0].range = plans[1][3].sends[0].range;
  CHECK_FOUND(plans, "not what its step makes");
  plans = ring();
  plans[1][4].receives[0].range = plans[1][3].receives[0].range;
  CHECK_FOUND(plans, "a source sends another range");
  plans = ring();
  plans[2][5].receives[0].range.end = count + 1;
  CHECK_FOUND(plans, "no valid range");
}

TEST_CASE("found: a wrong partner") {
  auto plans = ring();
  plans[1][1].sends[0].to = 3;
  CHECK_FOUND(plans, "nobody takes");
  plans = direct();
  plans[0][0].sends[0].to = plans[0][0].sends[1].to;
  CHECK_FOUND(plans, "two sends to one rank");
  plans = direct();
  plans[0][0].sends[0].to = 0;
  CHECK_FOUND(plans, "a send to nobody");
}

TEST_CASE("found: a dropped transfer") {
  auto plans = ring();
  plans[3][2].sends.clear();
  CHECK_FOUND(plans, "a source sends nothing");
  plans = ring();
  plans[3][5].receives.clear();
  CHECK_FOUND(plans, "nobody takes");
  plans = ring();
  plans[0][5].sends.clear();
  plans[1][5].receives.clear();
  CHECK_FOUND(plans, "an element of the result is missing");
  plans = direct();
  plans[2].pop_back();
  CHECK_FOUND(plans, "no such step");
}

TEST_CASE("found: a wrong `after`") {
  auto plans = ring();
  std::swap(plans[1][2].sends[0].after, plans[1][3].sends[0].after);
  CHECK_FOUND(plans, "not what its step makes");
  plans = ring();
  plans[1][2].sends[0].after = 4;
  CHECK_FOUND(plans, "waits for a later step");
  plans = ring();
  plans[1][3].sends[0].after = 1;
  CHECK_FOUND(plans, "not what its step makes");
  plans = ring();
  plans[1][3].sends[0].after = no_step;
  CHECK_FOUND(plans, "names no step");
  plans = direct();
  plans[1][4].sends[0].after = 0;
  CHECK_FOUND(plans, "a receive that is not there");
}

TEST_CASE("found: contributions that don't wait overrun the owner's staging") {
  auto plans = direct();
  const std::uint64_t bound = 2 * 3 * 2;
  CHECK(most_staged(plans) <= bound);
  for (Plan& plan : plans) {
    for (Step& step : plan) {
      for (Send& send : step.sends) {
        if (reads_input(send.source)) send.after = no_step;
      }
    }
  }
  CHECK(fault_of(plans) == "");
  CHECK(most_staged(plans) > bound);
}

TEST_CASE("found: wrong folds") {
  auto plans = ring();
  plans[1][1].folds[0].order = {0};  // the own contribution is left out
  CHECK_FOUND(plans, "a contribution is missing");
  plans = one_shot();
  std::swap(plans[2][0].folds[0].order[0], plans[2][0].folds[0].order[1]);
  CHECK_FOUND(plans, "different orders");
  plans = one_shot();
  plans[2][0].folds[0].order.push_back(1);
  CHECK_FOUND(plans, "takes a rank twice");
  plans = ring();
  plans[1][2].folds[0].final = false;
  CHECK_FOUND(plans, "not what its step makes");
  plans = ring();
  plans[1][0].receives.push_back({0, plans[1][0].folds[0].range});
  CHECK_FOUND(plans, "two transfers from one source");
}

TEST_CASE("found: weights that are missing or applied twice") {
  auto plans = ring();
  plans[2][0].sends[0].source = Source::input;
  CHECK_FOUND(plans, "weight");
  plans = ring();
  plans[2][1].folds[0].plain = true;
  CHECK_FOUND(plans, "weight");
  plans = direct();
  plans[2][0].sends[0].source = Source::weighted_input;
  CHECK_FOUND(plans, "weight");
  plans = one_shot();
  plans[2][0].folds[0].plain = false;
  CHECK_FOUND(plans, "weight");
}

TEST_CASE("found: partial sums that reach a result") {
  auto plans = ring();
  for (Rank self = 0; self < world; ++self) {
    // All agree to end the reduction one hop too early.
    Plan& plan = plans[static_cast<std::size_t>(self)];
    plan[1].folds[0].final = true;
    plan[2].sends[0].source = Source::result;
  }
  CHECK_FOUND(plans, "a final value is folded again");
  plans = one_shot();
  for (Plan& plan : plans) {
    plan[0].receives.push_back({plan[0].sends[0].to, {0, count}});
    std::erase(plan[0].folds[0].order, plan[0].sends[0].to);
  }
  CHECK_FOUND(plans, "not final");
}

TEST_CASE("found: a contribution that arrives twice") {
  auto plans = ring();
  for (Rank self = 0; self < world; ++self) {
    // The last hop goes on one too far: the chunk comes back to the rank that it started from.
    Plan& plan = plans[static_cast<std::size_t>(self)];
    Step again = plan[2];
    const Rank previous = (self + world - 1) % world;
    again.sends[0].range = plan[2].folds[0].range;
    again.sends[0].after = 2;
    plan[2].folds[0].final = false;
    again.folds[0].range = plans[static_cast<std::size_t>(self)][0].sends[0].range;
    again.folds[0].order = {previous, self};
    plan.resize(3);
    plan.push_back(again);
  }
  CHECK_FOUND(plans, "folded twice");
}

TEST_CASE("found: a range that is written while an earlier value of it may be under way") {
  auto plans = one_shot();
  for (Rank self = 0; self < world; ++self) {
    Plan& plan = plans[static_cast<std::size_t>(self)];
    plan.push_back(plan[0]);
  }
  CHECK_FOUND(plans, "written twice");
}

TEST_CASE("found: two sends that wait for each other") {
  const Range whole{0, count};
  const Plan left{{{{1, whole, Source::input, 0}}, {{1, whole}}, {}}};
  const Plan right{{{{0, whole, Source::input, 0}}, {{0, whole}}, {}}};
  CHECK_FOUND(std::vector<Plan>({left, right}), "deadlock");
}

TEST_CASE("found: a result that overwrites a partial sum still under way") {
  const Range whole{0, count};
  const Fold fold{whole, {0, 1}, true, false};
  const Plan left{{{{1, whole, Source::weighted_input, no_step}}, {}, {fold}}};
  const Plan right{{{{0, whole, Source::weighted_input, no_step}}, {}, {fold}}};
  CHECK_FOUND(std::vector<Plan>({left, right}), "partial sum still sent");
}

TEST_CASE("found: a partial sum that overwrites a result") {
  auto plans = one_shot();
  for (Plan& plan : plans) {
    plan.push_back(plan[0]);
    plan[1].folds[0].final = false;
  }
  CHECK_FOUND(plans, "overwrites a result");
}

TEST_CASE("found: in place, a result that overwrites an input still under way") {
  CHECK(found(one_shot(), "still sent", true) == "still sent");
}

}  // namespace pyccl::collectives
