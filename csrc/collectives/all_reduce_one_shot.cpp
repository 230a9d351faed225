// All-reduce in one shot.
//
// Idea: each rank sends its whole input to all others and folds all of them itself, in the order of
// the ranks, so that all get the same bits without exchanging results.
//
// Steps: 1. Elements sent per rank: (n-1) count, and as many staged.
//
// When: messages so small that a second hop costs more than the extra bytes. In place, a rank may
// hold the result while its own input is still on its way to a slow peer: the executor sends from
// the copy that it keeps of what a result overwrites.
#include "collectives/all_reduce_one_shot.hpp"

#include "base/assert.hpp"

namespace pyccl::collectives {

Plan all_reduce_one_shot(Rank self, Rank world, std::uint64_t count) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  if (count == 0) return {};
  const Range whole{0, count};
  Step step;
  Fold fold{whole, {}, true};
  for (Rank rank = 0; rank < world; ++rank) fold.order.push_back(rank);
  for (Rank distance = 1; distance < world; ++distance) {
    step.sends.push_back({(self + distance) % world, whole, Source::input, no_step});
  }
  step.folds.push_back(std::move(fold));
  return {std::move(step)};
}

}  // namespace pyccl::collectives
