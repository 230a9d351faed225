// What is offered, and of that the one that will be done first: cost.cpp has the formulas. Pacing
// and the plans themselves are in make_plan.cpp.
#include "collectives/select.hpp"

#include <algorithm>
#include <initializer_list>
#include <span>

#include "base/assert.hpp"
#include "collectives/cost.hpp"

namespace pyccl::collectives {
namespace {

// Of equals the first is taken: fewer roundings, fewer hops.
constexpr Algorithm all_reduces[] = {Algorithm::one_shot, Algorithm::direct,
                                     Algorithm::recursive_doubling, Algorithm::halving_doubling,
                                     Algorithm::ring};
constexpr Algorithm shared[] = {Algorithm::direct, Algorithm::ring};
constexpr Algorithm rooted[] = {Algorithm::direct, Algorithm::binomial, Algorithm::chain};
constexpr Algorithm one_way[] = {Algorithm::direct};

std::span<const Algorithm> offered(Kind kind) {
  switch (kind) {
    case Kind::all_reduce: return all_reduces;
    case Kind::reduce_scatter:
    case Kind::all_gather: return shared;
    case Kind::broadcast:
    case Kind::reduce: return rooted;
    case Kind::barrier:
    case Kind::all_to_all:
    case Kind::gather:
    case Kind::scatter:
    case Kind::send:
    case Kind::exchange: break;
  }
  return one_way;
}

}  // namespace

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::all_reduce: return "all_reduce";
    case Kind::barrier: return "barrier";
    case Kind::all_gather: return "all_gather";
    case Kind::all_to_all: return "all_to_all";
    case Kind::reduce_scatter: return "reduce_scatter";
    case Kind::broadcast: return "broadcast";
    case Kind::reduce: return "reduce";
    case Kind::gather: return "gather";
    case Kind::scatter: return "scatter";
    case Kind::send: return "send";
    case Kind::exchange: return "exchange";
  }
  return "unknown";
}

std::string_view name_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::automatic: return "auto";
    case Algorithm::ring: return "ring";
    case Algorithm::direct: return "direct";
    case Algorithm::one_shot: return "one_shot";
    case Algorithm::recursive_doubling: return "recursive_doubling";
    case Algorithm::halving_doubling: return "halving_doubling";
    case Algorithm::binomial: return "binomial";
    case Algorithm::chain: return "chain";
  }
  return "unknown";
}

bool offers(Kind kind, Algorithm algorithm) {
  const std::span<const Algorithm> all = offered(kind);
  return algorithm == Algorithm::automatic ||
         std::find(all.begin(), all.end(), algorithm) != all.end();
}

std::string algorithms_of(Kind kind) {
  std::string names;
  for (const Algorithm algorithm : offered(kind)) {
    if (!names.empty()) names += ", ";
    names += name_of(algorithm);
  }
  return names;
}

Algorithm choose(Kind kind, const Shape& shape, Algorithm forced, const Links& links) {
  PYCCL_ASSERT(offers(kind, forced));
  if (forced != Algorithm::automatic) return forced;
  const std::span<const Algorithm> all = offered(kind);
  Algorithm best = all[0];
  std::uint64_t least = estimated_us(kind, best, shape, links);
  for (const Algorithm algorithm : all.subspan(1)) {
    const std::uint64_t time = estimated_us(kind, algorithm, shape, links);
    if (time >= least) continue;
    best = algorithm;
    least = time;
  }
  return best;
}

}  // namespace pyccl::collectives
