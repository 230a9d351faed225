// Scatter at once.
//
// Idea: the root sends everybody its share, beginning with the rank behind it.
//
// Steps: 1. Elements sent: by the root the whole less its own share, by the others none. Nothing is
// staged.
//
// When: always. All of it has to pass the root's link, on whatever way it goes.
#include "collectives/scatter_direct.hpp"

#include "base/assert.hpp"
#include "collectives/ranks.hpp"
#include "collectives/shares.hpp"

namespace pyccl::collectives {

Plan scatter_direct(Rank self, Rank root, const std::vector<std::uint64_t>& shares) {
  const auto world = static_cast<Rank>(shares.size());
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world && root >= 0 && root < world);
  const std::vector<Range> places = places_of(shares);
  const Range own = places[static_cast<std::size_t>(self)];
  Step step;
  if (self != root) {
    if (own.size() > 0) step.receives.push_back({root, {0, own.size()}});
  } else {
    if (own.size() > 0) step.copies.push_back({own, 0});
    for (const Rank peer : others_behind(self, world)) {
      const Range theirs = places[static_cast<std::size_t>(peer)];
      if (theirs.size() > 0) step.sends.push_back({peer, theirs, Source::input, no_step});
    }
  }
  Plan plan;
  plan.steps.push_back(std::move(step));
  return plan;
}

}  // namespace pyccl::collectives
