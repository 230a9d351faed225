// All-gather at once.
//
// Idea: each rank sends its share to all others, beginning with the rank behind it, and what
// arrives goes to where it belongs.
//
// Steps: 1. Elements sent per rank: n-1 times its share. Nothing is staged.
//
// When: by default. One hop, all links at once.
#include "collectives/all_gather_direct.hpp"

#include "base/assert.hpp"
#include "collectives/ranks.hpp"
#include "collectives/shares.hpp"

namespace pyccl::collectives {

Plan all_gather_direct(Rank self, const std::vector<std::uint64_t>& shares) {
  const auto world = static_cast<Rank>(shares.size());
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  const std::vector<Range> places = places_of(shares);
  const Range own{0, shares[static_cast<std::size_t>(self)]};
  Step step;
  if (own.size() > 0) step.copies.push_back({own, places[static_cast<std::size_t>(self)].begin});
  for (const Rank peer : others_behind(self, world)) {
    const Range theirs = places[static_cast<std::size_t>(peer)];
    if (own.size() > 0) step.sends.push_back({peer, own, Source::input, no_step});
    if (theirs.size() > 0) step.receives.push_back({peer, theirs});
  }
  Plan plan;
  plan.steps.push_back(std::move(step));
  return plan;
}

}  // namespace pyccl::collectives
