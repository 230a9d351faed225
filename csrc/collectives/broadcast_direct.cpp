// Broadcast at once.
//
// Idea: the root sends everything to everybody, beginning with the rank behind it.
//
// Steps: 1. Elements sent: by the root (n-1) count, by the others none. Nothing is staged.
//
// When: small messages among few ranks, or hops so long that the root's n-1 copies take less time
// than one more.
#include "collectives/broadcast_direct.hpp"

#include "base/assert.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {

Plan broadcast_direct(Rank self, Rank world, Rank root, std::uint64_t count) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world && root >= 0 && root < world);
  Plan plan;
  if (count == 0) return plan;
  const Range whole{0, count};
  Step step;
  if (self == root) {
    step.copies.push_back({whole, 0});
    for (const Rank peer : others_behind(self, world)) {
      step.sends.push_back({peer, whole, Source::input, no_step});
    }
  } else {
    step.receives.push_back({root, whole});
  }
  plan.steps.push_back(std::move(step));
  return plan;
}

}  // namespace pyccl::collectives
