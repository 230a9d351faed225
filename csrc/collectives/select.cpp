// The choice of an algorithm: small messages are bound by hops, 16-bit sums by rounding, the rest
// by bytes.
#include "collectives/select.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "collectives/all_reduce_direct.hpp"
#include "collectives/all_reduce_one_shot.hpp"
#include "collectives/all_reduce_ring.hpp"

namespace pyccl::collectives {

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
  if (shape.rounds_when_stored || bytes < ring_bytes_min) return Algorithm::direct;
  return Algorithm::ring;
}

std::uint64_t direct_block(const AllReduceShape& shape) {
  PYCCL_ASSERT(shape.world > 0 && shape.element_bytes > 0);
  const auto world = static_cast<std::uint64_t>(shape.world);
  const std::uint64_t senders = std::max<std::uint64_t>(world - 1, 1);
  const std::uint64_t share_bytes =
      std::min(direct_share_bytes, direct_staging_bytes_max / 2 / senders);
  return std::max<std::uint64_t>(share_bytes / shape.element_bytes, 1) * world;
}

Plan make_all_reduce(Algorithm algorithm, Rank self, const AllReduceShape& shape) {
  switch (algorithm) {
    case Algorithm::ring: return all_reduce_ring(self, shape.world, shape.count);
    case Algorithm::direct:
      return all_reduce_direct(self, shape.world, shape.count, direct_block(shape));
    case Algorithm::one_shot: return all_reduce_one_shot(self, shape.world, shape.count);
    case Algorithm::automatic: break;
  }
  PYCCL_ASSERT(!"choose_all_reduce comes first");
  return {};
}

}  // namespace pyccl::collectives
