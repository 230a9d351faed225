// Reduce-scatter by owners, in blocks.
//
// Idea: the first half of all_reduce_direct: everybody sends each rank its share, and that rank
// folds all contributions in the order of the ranks.
//
// Steps: two for each block of the largest share: contributions in step 2b, and in step 2b+1 the
// owners' credits, since no result tells the others that an owner has folded. Contributions of
// block b+w to an owner wait for its credit of block b, where w is what the contributing rank
// allows itself. So an owner stages w (n-1) block elements at most. Nobody waits for the credit of
// an owner's last block, so there is none; a share of one block needs no credits at all.
//
// Elements sent per rank: the whole less its own share.
//
// When: by default. One hop, all links at once, and a sum in 16-bit floats is rounded only once.
#include "collectives/reduce_scatter_direct.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "collectives/ranks.hpp"
#include "collectives/shares.hpp"

namespace pyccl::collectives {
namespace {

constexpr int steps_per_block = 2;

Step& step_at(Plan& plan, std::uint64_t step) { return plan.steps[static_cast<std::size_t>(step)]; }

// Block `number` of a share that lies at `place`.
Range block_of(Range place, std::uint64_t block, std::uint64_t number) {
  const std::uint64_t begin = place.begin + number * block;
  return {begin, std::min(begin + block, place.end)};
}

void contribute(Plan& plan, Rank owner, Range share, std::uint64_t block, int blocks_in_flight) {
  const std::uint64_t blocks = (share.size() + block - 1) / block;
  for (std::uint64_t number = 0; number < blocks; ++number) {
    const int window = static_cast<int>(number) - blocks_in_flight;
    const int freed = window < 0 ? no_step : steps_per_block * window + 1;
    const std::uint64_t first = steps_per_block * number;
    step_at(plan, first)
        .sends.push_back({owner, block_of(share, block, number), Source::input, freed});
    if (number + 1 < blocks) step_at(plan, first + 1).receives.push_back({owner, {}});
  }
}

void own_share(Plan& plan, Rank self, Rank world, Range share, std::uint64_t block) {
  const std::uint64_t blocks = (share.size() + block - 1) / block;
  for (std::uint64_t number = 0; number < blocks; ++number) {
    const std::uint64_t first = steps_per_block * number;
    const Range part = block_of(share, block, number);
    step_at(plan, first)
        .folds.push_back({{part.begin - share.begin, part.end - share.begin},
                          all_ranks(world),
                          true,
                          true,
                          Source::input,
                          part.begin});
    if (number + 1 == blocks) continue;
    for (const Rank peer : others_behind(self, world)) {
      step_at(plan, first + 1).sends.push_back({peer, {}, Source::credit, static_cast<int>(first)});
    }
  }
}

}  // namespace

Plan reduce_scatter_direct(Rank self, const std::vector<std::uint64_t>& shares, std::uint64_t block,
                           int blocks_in_flight) {
  const auto world = static_cast<Rank>(shares.size());
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  PYCCL_ASSERT(block > 0 && blocks_in_flight > 0);
  const std::uint64_t largest = *std::max_element(shares.begin(), shares.end());
  const std::uint64_t blocks = (largest + block - 1) / block;
  const std::vector<Range> places = places_of(shares);
  Plan plan;
  plan.steps.resize(static_cast<std::size_t>(steps_per_block * blocks));
  for (const Rank owner : others_behind(self, world)) {
    contribute(plan, owner, places[static_cast<std::size_t>(owner)], block, blocks_in_flight);
  }
  own_share(plan, self, world, places[static_cast<std::size_t>(self)], block);
  return plan;
}

}  // namespace pyccl::collectives
