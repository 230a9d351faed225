// All-reduce by recursive doubling.
//
// Idea: in each round two blocks of ranks that know their own sums become one: each rank swaps its
// sum with a partner in the other block. After log2(n) rounds everybody knows the sum of all. Where
// n is no power of two, let p be the largest one below: rank r+p hands its input to rank r first,
// and gets the result from it at the end.
//
// All ranks compute the final sum on their own and must get the same bits. So the order of each
// fold is a matter of the blocks alone: the lower one first. And the first partners swap inputs as
// they are: were they weighted before they leave, the receiver would fold a product that has been
// rounded and the sender one that has not.
//
// Steps: log2(p), and 2 more unless n = p. Elements sent per rank: log2(p) count; those that have
// somebody to speak for count more, those somebody 1 count in all. Each round's sum has a place of
// its own in partial, so up to log2(p) count; what a faster partner sends is staged.
//
// When: small messages among so many ranks that one_shot's n-1 transfers cost more than log2(n)
// hops.
#include "collectives/all_reduce_recursive_doubling.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"
#include "collectives/alone.hpp"

namespace pyccl::collectives {
namespace {

// The own sum so far: the input, then what the rounds have made in partial.
struct Own {
  Source source = Source::input;
  std::uint64_t begin = 0;
};

// Where the next sum goes. Partial grows by it.
Range next_partial(Plan& plan, std::uint64_t count) {
  const std::uint64_t begin = plan.partial_count;
  plan.partial_count += count;
  return {begin, begin + count};
}

}  // namespace

Plan all_reduce_recursive_doubling(Rank self, Rank world, std::uint64_t count) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  Plan plan;
  if (count == 0) return plan;
  const Range whole{0, count};
  if (world == 1) return reduce_alone(count);
  const auto power = static_cast<Rank>(std::bit_floor(static_cast<std::uint32_t>(world)));
  const auto rounds =
      static_cast<std::size_t>(std::bit_width(static_cast<std::uint32_t>(power)) - 1);
  const std::size_t before = power < world ? 1 : 0;  // the step that hands inputs over
  plan.steps.resize(before + rounds + before);
  if (self >= power) {
    plan.steps.front().sends.push_back({self - power, whole, Source::input, no_step});
    plan.steps.back().receives.push_back({self - power, whole});
    return plan;
  }

  const auto speaks_for = [&](Rank rank) { return rank + power < world; };
  Own own;
  if (speaks_for(self)) {
    const Range sum = next_partial(plan, count);
    plan.steps.front().folds.push_back({sum, {self, self + power}, false, true, own.source, 0});
    own = {Source::partial, sum.begin};
  }
  for (std::size_t round = 0; round < rounds; ++round) {
    const Rank partner = self ^ (Rank{1} << round);
    const bool last = round + 1 == rounds;
    const bool plain = round == 0 && !speaks_for(partner);
    const Range sum = last ? whole : next_partial(plan, count);
    Step& step = plan.steps[before + round];
    step.sends.push_back({partner, {own.begin, own.begin + count}, own.source, no_step});
    step.folds.push_back({sum,
                          {std::min(self, partner), std::max(self, partner)},
                          last,
                          plain,
                          own.source,
                          own.begin});
    // The result does not wait for the first partner to have taken the input.
    if (own.source == Source::input) plan.overwrites_unsent = true;
    own = {Source::partial, sum.begin};
  }
  if (speaks_for(self)) {
    plan.steps.back().sends.push_back({self + power, whole, Source::result, no_step});
  }
  return plan;
}

}  // namespace pyccl::collectives
