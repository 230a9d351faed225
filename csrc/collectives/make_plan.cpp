// From the name of an algorithm to its plan: the one place that knows them all.
#include <algorithm>

#include "base/assert.hpp"
#include "collectives/all_gather_direct.hpp"
#include "collectives/all_gather_ring.hpp"
#include "collectives/all_reduce_direct.hpp"
#include "collectives/all_reduce_halving_doubling.hpp"
#include "collectives/all_reduce_one_shot.hpp"
#include "collectives/all_reduce_recursive_doubling.hpp"
#include "collectives/all_reduce_ring.hpp"
#include "collectives/all_to_all_direct.hpp"
#include "collectives/barrier.hpp"
#include "collectives/broadcast_binomial.hpp"
#include "collectives/broadcast_chain.hpp"
#include "collectives/broadcast_direct.hpp"
#include "collectives/gather_direct.hpp"
#include "collectives/pacing.hpp"
#include "collectives/reduce_binomial.hpp"
#include "collectives/reduce_chain.hpp"
#include "collectives/reduce_direct.hpp"
#include "collectives/reduce_scatter_direct.hpp"
#include "collectives/reduce_scatter_ring.hpp"
#include "collectives/scatter_direct.hpp"
#include "collectives/select.hpp"

namespace pyccl::collectives {
namespace {

struct Pace {
  std::uint64_t share;  // elements of an owner's part of a block
  int blocks_in_flight;
};

// `owned`: elements that one owner reduces in all.
Pace pace_of(const Shape& shape, std::uint64_t owned, Reach reach) {
  const std::uint64_t share = direct_share(shape.world, shape.element_bytes, owned);
  return {share, direct_blocks_in_flight(shape.world, shape.element_bytes, share, reach)};
}

Plan all_reduce(Algorithm algorithm, Rank self, const Shape& shape, const Links& links,
                Reach reach) {
  const auto world = static_cast<std::uint64_t>(shape.world);
  switch (algorithm) {
    case Algorithm::ring:
      return all_reduce_ring(self, RingOrder(shape.world, links.ring), shape.count);
    case Algorithm::one_shot: return all_reduce_one_shot(self, shape.world, shape.count);
    case Algorithm::recursive_doubling:
      return all_reduce_recursive_doubling(self, shape.world, shape.count);
    case Algorithm::halving_doubling:
      return all_reduce_halving_doubling(self, shape.world, shape.count);
    default: break;
  }
  const Pace pace = pace_of(shape, shape.count / world, reach);
  return all_reduce_direct(self, shape.world, shape.count, pace.share * world,
                           pace.blocks_in_flight);
}

Plan reduce_scatter(Algorithm algorithm, Rank self, const Shape& shape, const Links& links,
                    Reach reach) {
  PYCCL_ASSERT(shape.shares.size() == static_cast<std::size_t>(shape.world));
  if (algorithm == Algorithm::ring) {
    return reduce_scatter_ring(self, RingOrder(shape.world, links.ring), shape.shares);
  }
  const std::uint64_t largest = *std::max_element(shape.shares.begin(), shape.shares.end());
  const Pace pace = pace_of(shape, largest, reach);
  return reduce_scatter_direct(self, shape.shares, pace.share, pace.blocks_in_flight);
}

Plan all_gather(Algorithm algorithm, Rank self, const Shape& shape, const Links& links) {
  PYCCL_ASSERT(shape.shares.size() == static_cast<std::size_t>(shape.world));
  if (algorithm == Algorithm::ring) {
    return all_gather_ring(self, RingOrder(shape.world, links.ring), shape.shares);
  }
  return all_gather_direct(self, shape.shares);
}

Plan broadcast(Algorithm algorithm, Rank self, const Shape& shape, const Links& links) {
  if (algorithm == Algorithm::binomial) {
    return broadcast_binomial(self, shape.world, shape.root, shape.count);
  }
  if (algorithm == Algorithm::chain) {
    return broadcast_chain(self, RingOrder(shape.world, links.ring), shape.root, shape.count);
  }
  return broadcast_direct(self, shape.world, shape.root, shape.count);
}

Plan reduce(Algorithm algorithm, Rank self, const Shape& shape, const Links& links, Reach reach) {
  if (algorithm == Algorithm::binomial) {
    return reduce_binomial(self, shape.world, shape.root, shape.count);
  }
  if (algorithm == Algorithm::chain) {
    return reduce_chain(self, RingOrder(shape.world, links.ring), shape.root, shape.count);
  }
  const auto world = static_cast<std::uint64_t>(shape.world);
  const Pace pace = pace_of(shape, shape.count / world, reach);
  return reduce_direct(self, shape.world, shape.root, shape.count, pace.share * world,
                       pace.blocks_in_flight);
}

}  // namespace

Plan make_plan(Kind kind, Algorithm algorithm, Rank self, const Shape& shape, const Links& links,
               Reach reach) {
  PYCCL_ASSERT(algorithm != Algorithm::automatic && offers(kind, algorithm));
  PYCCL_ASSERT(shape.world > 0 && self >= 0 && self < shape.world);
  switch (kind) {
    case Kind::all_reduce: return all_reduce(algorithm, self, shape, links, reach);
    case Kind::reduce_scatter: return reduce_scatter(algorithm, self, shape, links, reach);
    case Kind::all_gather: return all_gather(algorithm, self, shape, links);
    case Kind::broadcast: return broadcast(algorithm, self, shape, links);
    case Kind::reduce: return reduce(algorithm, self, shape, links, reach);
    case Kind::gather: return gather_direct(self, shape.root, shape.shares);
    case Kind::scatter: return scatter_direct(self, shape.root, shape.shares);
    case Kind::all_to_all:
    case Kind::send:
    case Kind::exchange: return all_to_all_direct(self, shape.world, shape.sends, shape.receives);
    case Kind::barrier: break;
  }
  return barrier();
}

}  // namespace pyccl::collectives
