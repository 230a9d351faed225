// All-reduce in a ring.
//
// Idea: the operation is cut into one chunk per rank. Each chunk travels once round the ring and
// gathers one contribution per hop; the last rank of that way holds the final chunk, which then
// travels round a second time to be copied.
//
// Steps: 2(n-1). In step s < n-1 rank r sends chunk r-s to r+1 and folds chunk r-s-1 from r-1; so
// it ends with the final chunk r+1. In step n-1+t it sends chunk r+1-t and receives chunk r-t.
//
// Elements sent per rank: 2 count less the chunks r+1 and r+2, about 2 count (n-1)/n: the minimum.
// Nothing is staged: what arrives is folded with the own input at once.
//
// When: many ranks, large messages, neighbours with good links. Latency grows with n. Sums in
// 16-bit floats are rounded at every hop, so all_reduce_direct is the better one for those.
#include "collectives/all_reduce_ring.hpp"

#include "base/assert.hpp"
#include "collectives/chunk.hpp"

namespace pyccl::collectives {

Plan all_reduce_ring(Rank self, Rank world, std::uint64_t count) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  const Range whole{0, count};
  if (count == 0) return {};
  if (world == 1) return {Step{{}, {}, {Fold{whole, {self}, true}}}};

  const Rank next = (self + 1) % world;
  const Rank previous = (self + world - 1) % world;
  // Chunk numbers run downwards from self + 1, never below self - world.
  const auto chunk = [&](Rank number) { return chunk_of(whole, world, (number + world) % world); };

  Plan plan(static_cast<std::size_t>(2 * (world - 1)));
  for (int step = 0; step < 2 * (world - 1); ++step) {
    Step& now = plan[static_cast<std::size_t>(step)];
    const bool reducing = step < world - 1;
    // The chunk of a step is the one that arrived in the step before, in both halves.
    const Rank sent = reducing ? self - step : self + 1 - (step - (world - 1));
    const Range outgoing = chunk(sent);
    const Range incoming = chunk(sent - 1);
    if (outgoing.size() > 0) {
      const Source source =
          step == 0 ? Source::weighted_input : (reducing ? Source::partial : Source::result);
      now.sends.push_back({next, outgoing, source, step == 0 ? no_step : step - 1});
    }
    if (incoming.size() == 0) continue;
    if (reducing) {
      now.folds.push_back({incoming, {previous, self}, step == world - 2, false});
    } else {
      now.receives.push_back({previous, incoming});
    }
  }
  return plan;
}

}  // namespace pyccl::collectives
