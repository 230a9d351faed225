// Which algorithm runs an operation, and its plan. Pure functions of what all members know alike,
// since they must choose the same one without asking each other; no floating point, for processors
// might round differently.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "collectives/plan.hpp"
#include "pyccl.h"

namespace pyccl::collectives {

enum class Kind : std::uint8_t {
  all_reduce,
  barrier,
  all_gather,
  all_to_all,
  reduce_scatter,
  broadcast,
  reduce,
  gather,
  scatter,
  send,      // from rank 0 to rank 1 of two
  exchange,  // between two
};

std::string_view name_of(Kind kind);

enum class Algorithm : int {
  automatic = PYCCL_ALGORITHM_AUTO,
  ring = PYCCL_ALGORITHM_RING,
  direct = PYCCL_ALGORITHM_DIRECT,
  one_shot = PYCCL_ALGORITHM_ONE_SHOT,
  recursive_doubling = PYCCL_ALGORITHM_RECURSIVE_DOUBLING,
  halving_doubling = PYCCL_ALGORITHM_HALVING_DOUBLING,
  binomial = PYCCL_ALGORITHM_BINOMIAL,
  chain = PYCCL_ALGORITHM_CHAIN,
};

std::string_view name_of(Algorithm algorithm);

// What of an operation its plan depends on: its elements of one type, as one rank sees them. Counts
// and places that no other rank needs to know are the rank's own; the choice must not depend on
// them.
struct Shape {
  Rank world = 1;
  std::uint64_t element_bytes = 4;
  Rank root = 0;                        // broadcast, reduce, gather, scatter
  std::uint64_t count = 0;              // all_reduce, broadcast, reduce: elements of the whole
  std::vector<std::uint64_t> shares;    // all_gather, gather, reduce_scatter, scatter: of each rank
  std::vector<std::uint64_t> sends;     // all_to_all, send, exchange: own ones to each rank,
  std::vector<std::uint64_t> receives;  // and from each rank
  bool operator==(const Shape&) const = default;
};

// What has been measured of the links of a group, as its view says, so the same for all members.
struct Links {
  std::uint32_t latency_us = 0;       // one way, between those farthest apart; 0: not known
  std::uint32_t mesh_mb_per_s = 0;    // 1e6 bytes per second: the slowest link between any two,
  std::uint32_t ring_mb_per_s = 0;    // and between neighbours of the ring; 0: not known
  std::vector<Rank> ring;             // the order of the ring; empty: that of the ranks
  std::uint32_t ring_latency_us = 0;  // mean between neighbours of the ring; 0: the same as any
  bool operator==(const Links&) const = default;
};

// Where the other ranks are, as one rank sees it. It paces what that rank sends and nothing else,
// so ranks may differ. On one host little may be on its way, for that stays in the cache: 256 MiB
// among 4 ranks take a fifth less time with 1 MiB per link than with 8. A network's bandwidth times
// its round trip wants to be covered.
enum class Reach { same_host, network };

// Whether there is such an algorithm for the collective; `automatic` always.
bool offers(Kind kind, Algorithm algorithm);
// "direct, ring", for errors.
std::string algorithms_of(Kind kind);

// The algorithm of a call. A forced one, which the collective must offer, is obeyed, whatever it
// costs.
Algorithm choose(Kind kind, const Shape& shape, Algorithm forced, const Links& links);

// The plan of one rank. `algorithm` is what choose() gave, so never `automatic`.
Plan make_plan(Kind kind, Algorithm algorithm, Rank self, const Shape& shape, const Links& links,
               Reach reach);

}  // namespace pyccl::collectives
