// All-reduce by owners, in blocks.
//
// Idea: each rank owns one chunk of every block. Everybody sends the owner its contribution, the
// owner folds all of them in the order of the ranks and sends the final chunk to everybody.
//
// Steps: two per block, whatever n is: contributions in step 2b, results in step 2b+1. Blocks
// overlap freely but for one rule: contributions of block b+w to an owner wait for that owner's
// result of block b, where w is what the contributing rank allows itself. So an owner stages
// contributions of w blocks at most, that is w (n-1) ceil(block/n) elements, and no rank can outrun
// a slow one by more.
//
// Elements sent per rank: (n-1) times what it owns and once what it does not own, about
// 2 count (n-1)/n, the same as the ring.
//
// When: by default. Two hops instead of 2(n-1) matter on wide-area links, several links carry more
// than one, and a sum in 16-bit floats is rounded only once.
#include "collectives/all_reduce_direct.hpp"

#include "base/assert.hpp"
#include "collectives/chunk.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {
namespace {

// The two steps of one block; `first` is the number of the first one in the plan.
void append_block(Plan& plan, Rank self, Rank world, Range block, int blocks_in_flight) {
  const int first = static_cast<int>(plan.steps.size());
  // The result that frees the owner's staging. The owner surely sends one: every block but the last
  // has the full size, and chunk_of never shrinks with size, so who owns a part of this block owns
  // at least as much of the block that is waited for.
  const int window = first - 2 * blocks_in_flight;
  const int freed = window < 0 ? no_step : window + 1;
  const Range own = chunk_of(block, world, self);

  Step gather;
  Step spread;
  for (const Rank peer : others_behind(self, world)) {
    const Range theirs = chunk_of(block, world, peer);
    if (theirs.size() > 0) {
      gather.sends.push_back({peer, theirs, Source::input, freed});
      spread.receives.push_back({peer, theirs});
    }
    if (own.size() > 0) spread.sends.push_back({peer, own, Source::result, no_step});
  }
  if (own.size() > 0) {
    gather.folds.push_back({own, all_ranks(world), true, true, Source::input, own.begin});
  }
  plan.steps.push_back(std::move(gather));
  plan.steps.push_back(std::move(spread));
}

}  // namespace

Plan all_reduce_direct(Rank self, Rank world, std::uint64_t count, std::uint64_t block,
                       int blocks_in_flight) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  PYCCL_ASSERT(block > 0 && blocks_in_flight > 0);
  Plan plan;
  for (std::uint64_t begin = 0; begin < count; begin += block) {
    const std::uint64_t left = count - begin;
    append_block(plan, self, world, {begin, begin + (left < block ? left : block)},
                 blocks_in_flight);
  }
  return plan;
}

}  // namespace pyccl::collectives
