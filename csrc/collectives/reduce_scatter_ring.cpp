// Reduce-scatter in a ring.
//
// Idea: the first half of all_reduce_ring, begun one place earlier, so that each share ends where
// it belongs: it starts behind its owner, travels round the ring, gathers one contribution per hop
// and is final when it comes home.
//
// Steps: n-1. Ranks and shares are named by their places on the ring here. In step s rank r sends
// share r-1-s to r+1 and folds share r-2-s from r-1, with s = n-2 its own.
//
// Elements sent per rank: the whole less its own share. Nothing is staged. Partial has the
// coordinates of the input, so each share has a part of its own.
//
// When: large messages where the ring can avoid slow links.
#include "collectives/reduce_scatter_ring.hpp"

#include "base/assert.hpp"
#include "collectives/alone.hpp"
#include "collectives/shares.hpp"

namespace pyccl::collectives {

Plan reduce_scatter_ring(Rank self, const RingOrder& ring,
                         const std::vector<std::uint64_t>& shares) {
  const Rank world = ring.world();
  PYCCL_ASSERT(shares.size() == static_cast<std::size_t>(world));
  const std::vector<Range> places = places_of(shares);
  const Rank place = ring.place_of(self);
  const auto share = [&](Rank of) { return places[static_cast<std::size_t>(ring.at(of))]; };
  const Range own = share(place);
  const Range result{0, own.size()};
  Plan plan;
  if (world == 1) return reduce_alone(own.size());

  const Rank next = ring.at(place + 1);
  const Rank previous = ring.at(place - 1);
  plan.partial_count = places.back().end;
  plan.steps.resize(static_cast<std::size_t>(world - 1));
  for (Rank step = 0; step < world - 1; ++step) {
    Step& now = plan.steps[static_cast<std::size_t>(step)];
    const Range outgoing = share(place - 1 - step);
    const Range incoming = share(place - 2 - step);
    const bool last = step == world - 2;
    if (outgoing.size() > 0) {
      const Source source = step == 0 ? Source::weighted_input : Source::partial;
      now.sends.push_back({next, outgoing, source, no_step});
    }
    if (incoming.size() == 0) continue;
    now.folds.push_back(
        {last ? result : incoming, {previous, self}, last, false, Source::input, incoming.begin});
  }
  return plan;
}

}  // namespace pyccl::collectives
