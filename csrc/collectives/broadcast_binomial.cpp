// Broadcast down a binomial tree.
//
// Idea: whoever has the data sends it to one more rank each round, first to the child with most
// ranks below it.
//
// Steps: ceil(log2(n)); a rank of height h in the tree (binomial.hpp) sends in the last h of them,
// and gets its data in the one before. Elements sent per rank: count for each child, that is
// ceil(log2(n)) count by the root and none by half of the ranks. Nothing is staged.
//
// When: messages of few segments among more ranks than the root can serve alone.
#include "collectives/broadcast_binomial.hpp"

#include "collectives/binomial.hpp"

namespace pyccl::collectives {

Plan broadcast_binomial(Rank self, Rank world, Rank root, std::uint64_t count) {
  const BinomialTree tree(world, root);
  Plan plan;
  if (count == 0) return plan;
  const Range whole{0, count};
  const Rank node = tree.node_of(self);
  // The step in which a node gets its data.
  const auto step_of = [&](Rank child) -> Step& {
    return plan.steps[static_cast<std::size_t>(tree.rounds() - 1 - tree.height(child))];
  };
  plan.steps.resize(static_cast<std::size_t>(world > 1 ? tree.rounds() : 1));
  if (node == 0) {
    plan.steps[0].copies.push_back({whole, 0});
  } else {
    step_of(node).receives.push_back({tree.rank_of(tree.parent(node)), whole});
  }
  const Source source = node == 0 ? Source::input : Source::result;
  for (const Rank child : tree.children(node)) {
    step_of(child).sends.push_back({tree.rank_of(child), whole, source, no_step});
  }
  return plan;
}

}  // namespace pyccl::collectives
