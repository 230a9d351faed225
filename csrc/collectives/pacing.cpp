// Blocks that are large enough to be worth their headers and small enough to be staged.
#include "collectives/pacing.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace pyccl::collectives {
namespace {

std::uint64_t senders_of(Rank world) {
  return static_cast<std::uint64_t>(std::max<Rank>(world - 1, 1));
}

}  // namespace

std::uint64_t direct_share(Rank world, std::uint64_t element_bytes, std::uint64_t owned) {
  PYCCL_ASSERT(world > 0 && element_bytes > 0);
  const std::uint64_t share_bytes =
      std::min(direct_share_bytes, direct_staging_bytes_max / 2 / senders_of(world));
  // Steps have 16 bits and a block takes three at most, so what is huge is cut into larger blocks.
  constexpr std::uint64_t blocks_max = 21'000;
  return std::max<std::uint64_t>(share_bytes / element_bytes, owned / blocks_max + 1);
}

int direct_blocks_in_flight(Rank world, std::uint64_t element_bytes, std::uint64_t share,
                            Reach reach) {
  PYCCL_ASSERT(world > 0 && element_bytes > 0 && share > 0);
  const std::uint64_t wanted =
      reach == Reach::same_host ? direct_window_bytes_same_host : direct_window_bytes_network;
  const std::uint64_t window = std::min(wanted, direct_staging_bytes_max / senders_of(world));
  return static_cast<int>(std::max<std::uint64_t>(window / (share * element_bytes), 2));
}

}  // namespace pyccl::collectives
