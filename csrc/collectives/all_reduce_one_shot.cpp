// All-reduce in one shot.
//
// Idea: each rank sends its whole input to all others and folds all of them itself, in the order of
// the ranks, so that all get the same bits without exchanging results.
//
// Steps: 1. Elements sent per rank: (n-1) count, and as many staged.
//
// When: messages so small that a second hop costs more than the extra bytes. In place, a rank may
// hold the result while its own input is still on its way to a slow peer, so the executor keeps a
// copy.
#include "collectives/all_reduce_one_shot.hpp"

#include "base/assert.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {

Plan all_reduce_one_shot(Rank self, Rank world, std::uint64_t count) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  Plan plan;
  if (count == 0) return plan;
  const Range whole{0, count};
  Step step;
  for (const Rank peer : others_behind(self, world)) {
    step.sends.push_back({peer, whole, Source::input, no_step});
  }
  step.folds.push_back({whole, all_ranks(world)});
  plan.steps.push_back(std::move(step));
  plan.overwrites_unsent = world > 1;
  return plan;
}

}  // namespace pyccl::collectives
