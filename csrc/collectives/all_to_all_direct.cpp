// All-to-all at once.
//
// Idea: each rank sends each other rank what it has for it, beginning with the rank behind it. A
// rank knows its own amounts only; who sends and who takes must know the same of each other.
// A send is the case of two ranks of which one has something for the other, an exchange that of two
// ranks with nothing for themselves.
//
// Steps: 1. Elements sent per rank: what it has for others. Nothing is staged.
//
// When: always. Everybody has something else for everybody, so nothing is gained on a longer way.
// In place, what arrives may overwrite what has still to leave, so the executor keeps a copy.
#include "collectives/all_to_all_direct.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "collectives/ranks.hpp"
#include "collectives/shares.hpp"

namespace pyccl::collectives {
namespace {

std::vector<Range> places_or_none(Rank world, const std::vector<std::uint64_t>& amounts) {
  const auto ranks = static_cast<std::size_t>(world);
  PYCCL_ASSERT(amounts.empty() || amounts.size() == ranks);
  return amounts.empty() ? std::vector<Range>(ranks) : places_of(amounts);
}

}  // namespace

Plan all_to_all_direct(Rank self, Rank world, const std::vector<std::uint64_t>& sends,
                       const std::vector<std::uint64_t>& receives) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  const std::vector<Range> inputs = places_or_none(world, sends);
  const std::vector<Range> results = places_or_none(world, receives);
  const auto own = static_cast<std::size_t>(self);
  PYCCL_ASSERT(inputs[own].size() == results[own].size());
  Step step;
  if (inputs[own].size() > 0) step.copies.push_back({inputs[own], results[own].begin});
  for (const Rank peer : others_behind(self, world)) {
    const Range mine = inputs[static_cast<std::size_t>(peer)];
    const Range theirs = results[static_cast<std::size_t>(peer)];
    if (mine.size() > 0) step.sends.push_back({peer, mine, Source::input, no_step});
    if (theirs.size() > 0) step.receives.push_back({peer, theirs});
  }
  Plan plan;
  plan.overwrites_unsent = world > 1;
  plan.steps.push_back(std::move(step));
  return plan;
}

}  // namespace pyccl::collectives
