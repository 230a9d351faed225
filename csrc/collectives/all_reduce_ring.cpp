// All-reduce in a ring.
//
// Idea: the operation is cut into one chunk per rank. Each chunk travels once round the ring and
// gathers one contribution per hop; the last rank of that way holds the final chunk, which then
// travels round a second time to be copied.
//
// Steps: 2(n-1). Ranks and chunks are named by their places on the ring here. In step s < n-1 rank
// r sends chunk r-s to r+1 and folds chunk r-s-1 from r-1; so it ends with the final chunk r+1. In
// step n-1+t it sends chunk r+1-t and receives chunk r-t. Where a chunk lies in the whole is a
// matter of the number of its rank, so the order of the ring moves nothing.
//
// Elements sent per rank: 2 count less the chunks r+1 and r+2, about 2 count (n-1)/n: the minimum.
// Nothing is staged: what arrives is folded with the own input at once.
//
// When: large messages where the ring can avoid slow links. Latency grows with n. Sums in 16-bit
// floats are rounded at every hop, so all_reduce_direct is the better one for those.
#include "collectives/all_reduce_ring.hpp"

#include "collectives/alone.hpp"
#include "collectives/chunk.hpp"

namespace pyccl::collectives {

Plan all_reduce_ring(Rank self, const RingOrder& ring, std::uint64_t count) {
  const Rank world = ring.world();
  const Range whole{0, count};
  Plan plan;
  if (count == 0) return plan;
  if (world == 1) return reduce_alone(count);

  plan.partial_count = count;
  // A chunk's result comes when its partial sum has left for good, since it is made of that.
  plan.partial_in_result = true;
  const Rank place = ring.place_of(self);
  const Rank next = ring.at(place + 1);
  const Rank previous = ring.at(place - 1);
  const auto chunk = [&](Rank of) { return chunk_of(whole, world, ring.at(of)); };

  plan.steps.resize(static_cast<std::size_t>(2 * (world - 1)));
  for (Rank step = 0; step < 2 * (world - 1); ++step) {
    Step& now = plan.steps[static_cast<std::size_t>(step)];
    const bool reducing = step < world - 1;
    // The chunk of a step is the one that arrived in the step before, in both halves.
    const Rank sent = reducing ? place - step : place + 1 - (step - (world - 1));
    const Range outgoing = chunk(sent);
    const Range incoming = chunk(sent - 1);
    if (outgoing.size() > 0) {
      const Source source =
          step == 0 ? Source::weighted_input : (reducing ? Source::partial : Source::result);
      now.sends.push_back({next, outgoing, source, no_step});
    }
    if (incoming.size() == 0) continue;
    if (reducing) {
      now.folds.push_back(
          {incoming, {previous, self}, step == world - 2, false, Source::input, incoming.begin});
    } else {
      now.receives.push_back({previous, incoming});
    }
  }
  return plan;
}

}  // namespace pyccl::collectives
