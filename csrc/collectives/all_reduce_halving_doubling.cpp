// All-reduce by recursive halving and doubling.
//
// Idea: let p be the largest power of two that is not above n, and the ranks below p the core. The
// operation is cut into p pieces. Two halves of the core share the work: each rank gives its
// partner in the other half that half of the pieces, keeps its own half of them and folds what the
// partner gives. The halves do the same with what they kept, until each rank of the core has the
// final sum of the piece of its own number. Then the results go the same ways back, and what a rank
// holds doubles each time. The ranks beyond the core stay out of that: they send each piece to the
// rank that makes it final, which folds it in along with its last partner's sum, and get the final
// piece from it. So their bytes are spread over all, and they add no hop.
//
// Steps: 2 log2(p). Elements sent by a rank of the core: count less its piece in the first half; in
// the second what it holds before each step, about count (p-1)/p again; and its piece to each of
// the n-p ranks beyond, which send count each.
//
// Each halving has an area of its own in partial, so no sum is written over; all together have less
// than count + log2(p) elements. A rank stages what faster partners send ahead, at most as much and
// its piece once for each rank beyond the core.
//
// When: medium messages among so many ranks that direct's 2(n-1) transfers cost more than the hops.
#include "collectives/all_reduce_halving_doubling.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"
#include "collectives/alone.hpp"

namespace pyccl::collectives {
namespace {

struct Core {
  Range whole;
  Rank ranks = 1;  // a power of two
  Rank world = 1;
  int rounds() const { return std::bit_width(static_cast<std::uint32_t>(ranks)) - 1; }

  // The pieces of the block of `block` ranks that `rank` is in: the lower half of the ranks has the
  // lower half of the elements, and so on.
  Range pieces(Rank rank, Rank block) const {
    Range range = whole;
    for (Rank half = ranks / 2; half >= block; half /= 2) {
      const std::uint64_t middle = range.end - range.size() / 2;
      (rank & half) == 0 ? range.end = middle : range.begin = middle;
    }
    return range;
  }
};

// What a rank still works on, and where it has the first element of that.
struct Held {
  Range range;
  Source source = Source::input;
  std::uint64_t begin = 0;
  Range place_of(Range part) const {
    const std::uint64_t at = begin + (part.begin - range.begin);
    return {at, at + part.size()};
  }
};

void append_halvings(Plan& plan, Rank self, const Core& core) {
  Held held{core.whole};
  for (Rank distance = core.ranks / 2; distance > 0; distance /= 2) {
    const Rank partner = self ^ distance;
    const bool last = distance == 1;
    const Range given = core.pieces(partner, distance);
    const Range kept = core.pieces(self, distance);
    Step step;
    if (given.size() > 0) {
      step.sends.push_back({partner, held.place_of(given), held.source, no_step});
    }
    const Range area{plan.partial_count, plan.partial_count + kept.size()};
    if (!last) plan.partial_count = area.end;
    if (kept.size() > 0) {
      Fold fold{last ? kept : area,
                {std::min(self, partner), std::max(self, partner)},
                last,
                held.source == Source::input,
                held.source,
                held.place_of(kept).begin};
      for (Rank beyond = core.ranks; last && beyond < core.world; ++beyond) {
        fold.order.push_back(beyond);
      }
      step.folds.push_back(std::move(fold));
    }
    plan.steps.push_back(std::move(step));
    held = {kept, Source::partial, area.begin};
  }
}

void append_doublings(Plan& plan, Rank self, const Core& core) {
  for (Rank distance = 1; distance < core.ranks; distance *= 2) {
    const Rank partner = self ^ distance;
    const Range own = core.pieces(self, distance);
    const Range theirs = core.pieces(partner, distance);
    Step step;
    if (own.size() > 0) {
      step.sends.push_back({partner, own, Source::result, no_step});
      for (Rank beyond = core.ranks; distance == 1 && beyond < core.world; ++beyond) {
        step.sends.push_back({beyond, own, Source::result, no_step});
      }
    }
    if (theirs.size() > 0) step.receives.push_back({partner, theirs});
    plan.steps.push_back(std::move(step));
  }
}

// The plan of a rank beyond the core.
Plan beyond_plan(Rank self, const Core& core) {
  Plan plan;
  plan.steps.resize(static_cast<std::size_t>(2 * core.rounds()));
  // As the partners of the last halving do: inputs, or sums if there were halvings before it.
  const Source source = core.rounds() == 1 ? Source::input : Source::weighted_input;
  if (source == Source::weighted_input) {
    plan.partial_count = core.whole.end;
    plan.partial_in_result = true;  // each result contains what was weighted there
  }
  Step& give = plan.steps[static_cast<std::size_t>(core.rounds() - 1)];
  Step& take = plan.steps[static_cast<std::size_t>(core.rounds())];
  for (Rank nth = 0; nth < core.ranks; ++nth) {
    const Rank peer = (self + nth) % core.ranks;
    const Range piece = core.pieces(peer, 1);
    if (piece.size() == 0) continue;
    give.sends.push_back({peer, piece, source, no_step});
    take.receives.push_back({peer, piece});
  }
  return plan;
}

}  // namespace

Plan all_reduce_halving_doubling(Rank self, Rank world, std::uint64_t count) {
  PYCCL_ASSERT(world > 0 && self >= 0 && self < world);
  Plan plan;
  if (count == 0) return plan;
  const Range whole{0, count};
  if (world == 1) return reduce_alone(count);
  const auto ranks = static_cast<Rank>(std::bit_floor(static_cast<std::uint32_t>(world)));
  const Core core{whole, ranks, world};
  if (self >= ranks) return beyond_plan(self, core);
  append_halvings(plan, self, core);
  append_doublings(plan, self, core);
  return plan;
}

}  // namespace pyccl::collectives
