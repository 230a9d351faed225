// Broadcast along a chain.
//
// Idea: the ring, begun at the root and not closed: each rank hands on what it gets, segment by
// segment, so all links work at once as soon as the first segment has come to the end.
//
// Steps: n-1, one per link; the rank d hops behind the root receives in step d-1 and sends in step
// d. Elements sent per rank: count, but for the last one, which sends none. Nothing is staged.
//
// When: large messages. Nobody sends more than once, and the ring may avoid slow links; a message
// of few segments takes n-1 hops for nothing.
#include "collectives/broadcast_chain.hpp"

namespace pyccl::collectives {

Plan broadcast_chain(Rank self, const RingOrder& ring, Rank root, std::uint64_t count) {
  Plan plan;
  if (count == 0) return plan;
  const Range whole{0, count};
  const Rank world = ring.world();
  const Rank distance = ring.distance(root, self);
  const Rank place = ring.place_of(self);
  plan.steps.resize(static_cast<std::size_t>(world > 1 ? world - 1 : 1));
  if (distance == 0) {
    plan.steps[0].copies.push_back({whole, 0});
  } else {
    Step& step = plan.steps[static_cast<std::size_t>(distance - 1)];
    step.receives.push_back({ring.at(place - 1), whole});
  }
  if (distance + 1 < world) {
    const Source source = distance == 0 ? Source::input : Source::result;
    Step& step = plan.steps[static_cast<std::size_t>(distance)];
    step.sends.push_back({ring.at(place + 1), whole, source, no_step});
  }
  return plan;
}

}  // namespace pyccl::collectives
