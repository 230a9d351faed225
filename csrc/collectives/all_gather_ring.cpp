// All-gather in a ring.
//
// Idea: each share travels round the ring, and whoever it passes keeps a copy.
//
// Steps: n-1. Ranks and shares are named by their places on the ring here. In step s rank r sends
// share r-s to r+1 and receives share r-s-1 from r-1.
//
// Elements sent per rank: the whole less the share of the next rank. Nothing is staged.
//
// When: large messages where the ring can avoid slow links, or few large shares among many small
// ones, which direct would send n-1 times from one place.
#include "collectives/all_gather_ring.hpp"

#include "base/assert.hpp"
#include "collectives/shares.hpp"

namespace pyccl::collectives {

Plan all_gather_ring(Rank self, const RingOrder& ring, const std::vector<std::uint64_t>& shares) {
  const Rank world = ring.world();
  PYCCL_ASSERT(shares.size() == static_cast<std::size_t>(world));
  const std::vector<Range> places = places_of(shares);
  const Rank place = ring.place_of(self);
  const auto share = [&](Rank of) { return places[static_cast<std::size_t>(ring.at(of))]; };
  const Range own = share(place);
  Plan plan;
  plan.steps.resize(static_cast<std::size_t>(world > 1 ? world - 1 : 1));
  if (own.size() > 0) plan.steps[0].copies.push_back({{0, own.size()}, own.begin});
  for (Rank step = 0; step < world - 1; ++step) {
    Step& now = plan.steps[static_cast<std::size_t>(step)];
    const Range outgoing = share(place - step);
    const Range incoming = share(place - step - 1);
    if (outgoing.size() > 0) {
      const bool mine = step == 0;
      now.sends.push_back({ring.at(place + 1), mine ? Range{0, own.size()} : outgoing,
                           mine ? Source::input : Source::result, no_step});
    }
    if (incoming.size() > 0) now.receives.push_back({ring.at(place - 1), incoming});
  }
  return plan;
}

}  // namespace pyccl::collectives
