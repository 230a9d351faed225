// Gather at once.
//
// Idea: everybody sends its share to the root, which puts it to where it belongs.
//
// Steps: 1. Elements sent per rank: its share, none by the root. Nothing is staged.
//
// When: always. All of it has to pass the root's link, on whatever way it comes.
#include "collectives/gather_direct.hpp"

#include "base/assert.hpp"
#include "collectives/ranks.hpp"
#include "collectives/shares.hpp"

namespace pyccl::collectives {

Plan gather_direct(Rank self, Rank root, const std::vector<std::uint64_t>& shares) {
  const auto world = static_cast<Rank>(shares.size());
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world && root >= 0 && root < world);
  const std::vector<Range> places = places_of(shares);
  const Range own = places[static_cast<std::size_t>(self)];
  const Range input{0, own.size()};
  Step step;
  if (self != root) {
    if (input.size() > 0) step.sends.push_back({root, input, Source::input, no_step});
  } else {
    if (input.size() > 0) step.copies.push_back({input, own.begin});
    for (const Rank peer : others_behind(self, world)) {
      const Range theirs = places[static_cast<std::size_t>(peer)];
      if (theirs.size() > 0) step.receives.push_back({peer, theirs});
    }
  }
  Plan plan;
  plan.steps.push_back(std::move(step));
  return plan;
}

}  // namespace pyccl::collectives
