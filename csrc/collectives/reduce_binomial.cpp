// Reduce up a binomial tree.
//
// Idea: each rank folds its input with the sums of its children, the nearest one first, and sends
// that to its parent.
//
// Steps: ceil(log2(n)); a rank of height h in the tree (binomial.hpp) folds in step h-1, in which
// its children send. Elements sent per rank: count, none by the root. A rank stages the sums of
// those children that come early, up to ceil(log2(n)) count at the root.
//
// When: messages of few segments.
#include "collectives/reduce_binomial.hpp"

#include "collectives/alone.hpp"
#include "collectives/binomial.hpp"

namespace pyccl::collectives {

Plan reduce_binomial(Rank self, Rank world, Rank root, std::uint64_t count) {
  const BinomialTree tree(world, root);
  Plan plan;
  if (count == 0) return plan;
  if (world == 1) return reduce_alone(count);
  const Range whole{0, count};
  const Rank node = tree.node_of(self);
  // The step in which a node folds, if it has children.
  const auto step_of = [&](Rank parent) -> Step& {
    return plan.steps[static_cast<std::size_t>(tree.height(parent) - 1)];
  };
  plan.steps.resize(static_cast<std::size_t>(tree.rounds()));
  const std::vector<Rank> children = tree.children(node);
  if (node == 0 || !children.empty()) {
    Fold fold{whole, {self}, node == 0, false, Source::input, 0};
    for (const Rank child : children) fold.order.push_back(tree.rank_of(child));
    step_of(node).folds.push_back(std::move(fold));
  }
  if (node > 0) {
    const Rank parent = tree.parent(node);
    const Source source = children.empty() ? Source::weighted_input : Source::partial;
    plan.partial_count = count;
    step_of(parent).sends.push_back({tree.rank_of(parent), whole, source, no_step});
  }
  return plan;
}

}  // namespace pyccl::collectives
