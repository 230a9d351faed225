// The model: latency of hops, costs of transfers, and the busiest of links, ranks and processors.
//
//   time = hops latency of the links in use + transfers transfer_us
//        + max(link / rate of the links in use, rank / rate of a rank, handled / handling rate)
//
// with microseconds, bytes, and megabytes per second, which are bytes per microsecond:
//
//   hops       how often somebody waits for what somebody else has waited for
//   transfers  of the rank that starts most of them in a row
//   link       bytes over one link in one direction, where most go. Ring and chain use the links of
//              the ring only, at ring_mb_per_s; all others any link, and so the slowest there is,
//              at mesh_mb_per_s
//   rank       bytes that one rank sends, or receives, where those are most. A rank has the rate of
//              the best link that we know of
//   handled    bytes that one rank sends, receives, and reads and writes in folds. On one host
//              nothing else counts: all ranks share its memory
//
// For n ranks, let r = ceil(log2 n), p = 2^q the largest power of two up to n, x = 1 where p < n
// (else 0); B the bytes of the whole, P = B/n, W = B - P; S the largest share; H what has to come
// before it can be handed on. A fold of k contributions of b bytes handles (k+1) b.
//
//                          hops     transfers   link      rank          handled
//   all_reduce
//     one_shot             1        n-1         B         (n-1) B       2 (n-1) B + (n+1) B
//     recursive_doubling   q + 2x   q + 2x      B         (q+x) B       5 (q+x) B
//     halving_doubling     2q       2q + n-p    B         2 (B - B/p) + (n-p) B/p
//                                                         twice that and 3 (B - B/p) + (n-p) B/p
//     direct               2        2 (n-1)     2 P       2 W           4 W + (n+1) P
//     ring                 2 (n-1)  2 (n-1)     2 W       2 W           7 W
//   reduce_scatter
//     direct               1        n-1         S         max(W, (n-1) S)
//                                                         W + (n-1) S + (n+1) S
//     ring                 n-1      n-1         W         W             5 W
//   all_gather
//     direct               1        n-1         S         max(W, (n-1) S)
//                                                         W + (n-1) S
//     ring                 n-1      n-1         W         W             2 W
//   broadcast, with C = B + (n-2) min(B, H)
//     direct               1        n-1         B         (n-1) B       (n-1) B
//     binomial             r        r           B         r B           r B
//     chain                n-1      n-1         C         C             2 C
//   reduce
//     direct               2        2 (n-1)     2 P       2 W           5 W + (n+1) P
//     binomial             r        r           B         r B           r B + (r+2) B
//     chain                n-1      n-1         C         C             5 C
//
// So on one host the ring takes 5.25 B and direct 4.25 B of handling in an all-reduce of 4 ranks,
// which is the quarter more that is measured there. The bounds on one_shot stand in cost.hpp;
// recursive_doubling of two ranks is one_shot by another name.
#include "collectives/cost.hpp"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/assert.hpp"

namespace pyccl::collectives {
namespace {

constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();

std::uint64_t plus(std::uint64_t x, std::uint64_t y) { return x > never - y ? never : x + y; }
std::uint64_t times(std::uint64_t x, std::uint64_t y) {
  return y != 0 && x > never / y ? never : x * y;
}

struct Rates {
  std::uint64_t latency_us;
  std::uint64_t ring_latency_us;
  std::uint64_t mesh;
  std::uint64_t ring;
};

Rates rates_of(const Links& links) {
  const auto known = [](std::uint64_t value, std::uint64_t else_value) {
    return value > 0 ? value : else_value;
  };
  const std::uint64_t latency = known(links.latency_us, host_latency_us);
  return {latency, known(links.ring_latency_us, latency),
          known(links.mesh_mb_per_s, known(links.ring_mb_per_s, host_mb_per_s)),
          known(links.ring_mb_per_s, known(links.mesh_mb_per_s, host_mb_per_s))};
}

struct Load {
  std::uint64_t hops = 0;
  std::uint64_t transfers = 0;
  std::uint64_t link = 0;
  std::uint64_t rank = 0;
  std::uint64_t handled = 0;
  bool on_ring = false;
};

std::uint64_t time_of(const Load& load, const Rates& rates) {
  const std::uint64_t busiest =
      std::max({load.link / (load.on_ring ? rates.ring : rates.mesh),
                load.rank / std::max(rates.ring, rates.mesh), load.handled / handling_mb_per_s});
  const std::uint64_t latency = load.on_ring ? rates.ring_latency_us : rates.latency_us;
  return plus(plus(times(load.hops, latency), times(load.transfers, transfer_us)), busiest);
}

// The letters of the table above.
struct Sizes {
  std::uint64_t n;
  std::uint64_t r;
  std::uint64_t q;
  std::uint64_t p;
  std::uint64_t B;
  std::uint64_t S;
  std::uint64_t P() const { return B / n; }
  std::uint64_t W() const { return B - B / n; }
  // What passes each link of a chain until its end has all.
  std::uint64_t C() const { return plus(B, times(n - 2, std::min(B, handed_on_bytes))); }
};

Sizes sizes_of(Kind kind, const Shape& shape) {
  Sizes sizes{};
  sizes.n = static_cast<std::uint64_t>(shape.world);
  sizes.r = static_cast<std::uint64_t>(std::bit_width(sizes.n - 1));
  sizes.p = std::bit_floor(sizes.n);
  sizes.q = static_cast<std::uint64_t>(std::bit_width(sizes.p) - 1);
  std::uint64_t count = shape.count;
  if (kind == Kind::reduce_scatter || kind == Kind::all_gather) {
    count = 0;
    std::uint64_t largest = 0;
    for (const std::uint64_t share : shape.shares) {
      count = plus(count, share);
      largest = std::max(largest, share);
    }
    sizes.S = times(largest, shape.element_bytes);
  }
  sizes.B = times(count, shape.element_bytes);
  return sizes;
}

bool fits_one_shot(const Sizes& s, const Rates& rates) {
  const std::uint64_t scaled = times(one_shot_bytes_max, rates.latency_us) / host_latency_us;
  return times(s.n - 1, s.B) <= std::clamp(scaled, one_shot_bytes_max, one_shot_bytes_max_far);
}

Load all_reduce_load(Algorithm algorithm, const Sizes& s) {
  const std::uint64_t others = s.n - 1;
  const std::uint64_t beyond = s.n - s.p;
  const std::uint64_t x = beyond > 0 ? 1 : 0;
  switch (algorithm) {
    case Algorithm::one_shot: {
      const std::uint64_t sent = times(others, s.B);
      return {1, others, s.B, sent, plus(times(2, sent), times(s.n + 1, s.B))};
    }
    case Algorithm::recursive_doubling:
      return {s.q + 2 * x, s.q + 2 * x, s.B, times(s.q + x, s.B), times(5 * (s.q + x), s.B)};
    case Algorithm::halving_doubling: {
      const std::uint64_t piece = s.B / s.p;
      const std::uint64_t sent = plus(times(2, s.B - piece), times(beyond, piece));
      const std::uint64_t folded = plus(times(3, s.B - piece), times(beyond, piece));
      return {2 * s.q, 2 * s.q + beyond, s.B, sent, plus(times(2, sent), folded)};
    }
    case Algorithm::direct:
      return {2, 2 * others, 2 * s.P(), times(2, s.W()),
              plus(times(4, s.W()), times(s.n + 1, s.P()))};
    default:
      return {2 * others, 2 * others, times(2, s.W()), times(2, s.W()), times(7, s.W()), true};
  }
}

Load share_load(Kind kind, Algorithm algorithm, const Sizes& s) {
  const std::uint64_t others = s.n - 1;
  const bool folds = kind == Kind::reduce_scatter;
  if (algorithm == Algorithm::ring) {
    return {others, others, s.W(), s.W(), times(folds ? 5 : 2, s.W()), true};
  }
  const std::uint64_t at_owner = times(others, s.S);
  const std::uint64_t moved = plus(s.W(), at_owner);
  return {1, others, s.S, std::max(s.W(), at_owner),
          folds ? plus(moved, times(s.n + 1, s.S)) : moved};
}

Load root_load(Kind kind, Algorithm algorithm, const Sizes& s) {
  const std::uint64_t others = s.n - 1;
  const bool folds = kind == Kind::reduce;
  if (algorithm == Algorithm::chain) {
    return {others, others, s.C(), s.C(), times(folds ? 5 : 2, s.C()), true};
  }
  if (algorithm == Algorithm::binomial) {
    const std::uint64_t moved = times(s.r, s.B);
    return {s.r, s.r, s.B, moved, folds ? plus(moved, times(s.r + 2, s.B)) : moved};
  }
  if (folds) {
    return {2, 2 * others, 2 * s.P(), times(2, s.W()),
            plus(times(5, s.W()), times(s.n + 1, s.P()))};
  }
  return {1, others, s.B, times(others, s.B), times(others, s.B)};
}

}  // namespace

std::uint64_t estimated_us(Kind kind, Algorithm algorithm, const Shape& shape, const Links& links) {
  PYCCL_ASSERT(shape.world > 0 && shape.element_bytes > 0);
  if (shape.world == 1) return 0;
  const Rates rates = rates_of(links);
  const Sizes sizes = sizes_of(kind, shape);
  switch (kind) {
    case Kind::all_reduce:
      if (algorithm == Algorithm::one_shot && !fits_one_shot(sizes, rates)) return never;
      if (algorithm == Algorithm::recursive_doubling && shape.world == 2) return never;
      return time_of(all_reduce_load(algorithm, sizes), rates);
    case Kind::reduce_scatter:
    case Kind::all_gather: return time_of(share_load(kind, algorithm, sizes), rates);
    case Kind::broadcast:
    case Kind::reduce: return time_of(root_load(kind, algorithm, sizes), rates);
    default: return 0;  // there is only one way
  }
}

}  // namespace pyccl::collectives
