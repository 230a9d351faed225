// Reduce by owners, in blocks.
//
// Idea: as in all_reduce_direct each rank owns one chunk of every block and folds all contributions
// to it in the order of the ranks, but the sum goes to the root only. There it becomes a result:
// only the root has one, so an average is divided there.
//
// Steps: three per block: contributions in step 3b, sums to the root in step 3b+1, and in step 3b+2
// the owners' credits. Contributions of block b+w to an owner wait for its credit of block b, where
// w is what the contributing rank allows itself. So an owner stages w (n-1) ceil(block/n) elements
// at most. Nobody waits for a credit of the last block, so there is none.
//
// Elements sent per rank: count; by the root count less what it owns.
//
// When: medium messages. Two hops instead of n-1, all links at once, and a sum in 16-bit floats is
// rounded only twice; but the root gets nearly 2 count.
#include "collectives/reduce_direct.hpp"

#include "base/assert.hpp"
#include "collectives/chunk.hpp"
#include "collectives/ranks.hpp"

namespace pyccl::collectives {
namespace {

constexpr int steps_per_block = 3;

// The three steps of one block.
void append_block(Plan& plan, Rank self, Rank world, Rank root, Range block, bool last_block,
                  int blocks_in_flight) {
  const int first = static_cast<int>(plan.steps.size());
  // As in all_reduce_direct, who owns a part of this block owns one of the block waited for.
  const int window = first - steps_per_block * blocks_in_flight;
  const int freed = window < 0 ? no_step : window + 2;
  const Range own = chunk_of(block, world, self);
  const Range sum{plan.partial_count,
                  plan.partial_count + own.size()};  // of an owner, not the root

  Step gather;
  Step report;
  Step credit;
  for (const Rank peer : others_behind(self, world)) {
    const Range theirs = chunk_of(block, world, peer);
    if (theirs.size() > 0) {
      gather.sends.push_back({peer, theirs, Source::input, freed});
      if (self == root) report.folds.push_back({theirs, {peer}, true, false});
      if (!last_block) credit.receives.push_back({peer, {}});
    }
    if (own.size() == 0) continue;
    if (peer == root) report.sends.push_back({peer, sum, Source::partial, no_step});
    if (!last_block) credit.sends.push_back({peer, {}, Source::credit, first});
  }
  if (own.size() > 0) {
    const bool final = self == root;
    gather.folds.push_back(
        {final ? own : sum, all_ranks(world), final, true, Source::input, own.begin});
    if (!final) plan.partial_count = sum.end;
  }
  plan.steps.push_back(std::move(gather));
  plan.steps.push_back(std::move(report));
  plan.steps.push_back(std::move(credit));
}

}  // namespace

Plan reduce_direct(Rank self, Rank world, Rank root, std::uint64_t count, std::uint64_t block,
                   int blocks_in_flight) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world && root >= 0 && root < world);
  PYCCL_ASSERT(block > 0 && blocks_in_flight > 0);
  Plan plan;
  for (std::uint64_t begin = 0; begin < count; begin += block) {
    const std::uint64_t left = count - begin;
    append_block(plan, self, world, root, {begin, begin + (left < block ? left : block)},
                 left <= block, blocks_in_flight);
  }
  return plan;
}

}  // namespace pyccl::collectives
