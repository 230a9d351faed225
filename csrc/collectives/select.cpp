// The choice of an algorithm: small messages are bound by hops, the rest by bytes.
#include "collectives/select.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "collectives/all_reduce_direct.hpp"
#include "collectives/all_reduce_one_shot.hpp"
#include "collectives/all_reduce_ring.hpp"

namespace pyccl::collectives {
namespace {

std::uint64_t senders_of(const AllReduceShape& shape) {
  return static_cast<std::uint64_t>(std::max<Rank>(shape.world - 1, 1));
}

}  // namespace

std::string_view name_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::automatic: return "auto";
    case Algorithm::ring: return "ring";
    case Algorithm::direct: return "direct";
    case Algorithm::one_shot: return "one_shot";
  }
  return "unknown";
}

Algorithm choose_all_reduce(const AllReduceShape& shape, Algorithm forced) {
  PYCCL_ASSERT(shape.world > 0 && shape.element_bytes > 0);
  if (forced != Algorithm::automatic) return forced;
  const std::uint64_t bytes = shape.count * shape.element_bytes;
  const auto others = static_cast<std::uint64_t>(shape.world - 1);
  // Divided instead of multiplied, so that no size can wrap round.
  if (others == 0 || bytes <= one_shot_bytes_max / others) return Algorithm::one_shot;
  return Algorithm::direct;
}

std::uint64_t direct_block(const AllReduceShape& shape) {
  PYCCL_ASSERT(shape.world > 0 && shape.element_bytes > 0);
  const auto world = static_cast<std::uint64_t>(shape.world);
  const std::uint64_t share_bytes =
      std::min(direct_share_bytes, direct_staging_bytes_max / 2 / senders_of(shape));
  // Steps have 16 bits, so what is huge is cut into larger blocks.
  constexpr std::uint64_t blocks_max = 32'000;
  const std::uint64_t share_least = shape.count / (blocks_max * world) + 1;
  return std::max<std::uint64_t>(share_bytes / shape.element_bytes, share_least) * world;
}

int direct_blocks_in_flight(const AllReduceShape& shape, Reach reach) {
  const std::uint64_t wanted =
      reach == Reach::same_host ? direct_window_bytes_same_host : direct_window_bytes_network;
  const std::uint64_t window = std::min(wanted, direct_staging_bytes_max / senders_of(shape));
  const std::uint64_t share_bytes =
      direct_block(shape) / static_cast<std::uint64_t>(shape.world) * shape.element_bytes;
  return static_cast<int>(std::max<std::uint64_t>(window / share_bytes, 2));
}

Plan make_all_reduce(Algorithm algorithm, Rank self, const AllReduceShape& shape, Reach reach) {
  switch (algorithm) {
    case Algorithm::ring: return all_reduce_ring(self, shape.world, shape.count);
    case Algorithm::direct:
      return all_reduce_direct(self, shape.world, shape.count, direct_block(shape),
                               direct_blocks_in_flight(shape, reach));
    case Algorithm::one_shot: return all_reduce_one_shot(self, shape.world, shape.count);
    case Algorithm::automatic: break;
  }
  PYCCL_ASSERT(!"choose_all_reduce comes first");
  return {};
}

}  // namespace pyccl::collectives
