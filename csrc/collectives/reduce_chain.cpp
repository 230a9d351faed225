// Reduce along a chain.
//
// Idea: the ring, begun behind the root and ended at it: each rank adds its input to what it gets
// and hands the sum on, segment by segment, so all links work at once as soon as the first segment
// has come to the root.
//
// Steps: n-1, one per link; the rank d hops behind the root folds in step d-2 and sends in step
// d-1; the root, n hops behind itself, folds in the last. Elements sent per rank: count, none by
// the root. Nothing is staged.
//
// When: large messages, above all where the ring can avoid slow links. Sums in 16-bit floats are
// rounded at every hop.
#include "collectives/reduce_chain.hpp"

#include "collectives/alone.hpp"

namespace pyccl::collectives {

Plan reduce_chain(Rank self, const RingOrder& ring, Rank root, std::uint64_t count) {
  Plan plan;
  if (count == 0) return plan;
  const Range whole{0, count};
  const Rank world = ring.world();
  if (world == 1) return reduce_alone(count);
  const Rank place = ring.place_of(self);
  const Rank hops = self == root ? world : ring.distance(root, self);
  plan.steps.resize(static_cast<std::size_t>(world - 1));
  if (hops > 1) {
    Step& step = plan.steps[static_cast<std::size_t>(hops - 2)];
    step.folds.push_back(
        {whole, {ring.at(place - 1), self}, self == root, false, Source::input, 0});
  }
  if (self != root) {
    const Source source = hops == 1 ? Source::weighted_input : Source::partial;
    Step& step = plan.steps[static_cast<std::size_t>(hops - 1)];
    step.sends.push_back({ring.at(place + 1), whole, source, no_step});
    plan.partial_count = count;
  }
  return plan;
}

}  // namespace pyccl::collectives
