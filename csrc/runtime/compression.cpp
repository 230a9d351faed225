// See compression.hpp.
#include "runtime/compression.hpp"

#include <algorithm>
#include <chrono>

#include "base/bytes.hpp"
#include "kernels/shuffle.hpp"
#include "kernels/zstd.hpp"

namespace pyccl::runtime {
namespace {

// Of a block: what a segment has, so that caches and frames are as they will be.
constexpr std::size_t sample_bytes_max = 256 * 1024;
// What is taken off the wire has to be worth the processor's time.
constexpr double gain_min = 1.05;

}  // namespace

bool compression_pays(const engine::StateSync::Samples& samples,
                      const std::vector<std::uint32_t>& mb_per_s) {
  using Clock = std::chrono::steady_clock;
  std::uint32_t carried = 0;
  for (const Rank to : samples.receivers) {
    const auto rank = static_cast<std::size_t>(to);
    if (rank < mb_per_s.size()) carried = std::max(carried, mb_per_s[rank]);
  }
  if (carried >= engine::near_mb_per_s) return false;
  kernels::Zstd zstd;
  zstd.prepare();
  Bytes shuffled(sample_bytes_max);
  Bytes packed(sample_bytes_max);
  double before = 0.0;
  double after = 0.0;
  const auto began = Clock::now();
  for (const auto& [block, width] : samples.blocks) {
    const ByteView sample = block.first(std::min(block.size(), sample_bytes_max));
    const MutableByteView to(shuffled.data(), sample.size());
    kernels::shuffle(sample, width, to);
    const std::size_t made = zstd.compress(to, {packed.data(), sample.size() - 1});
    before += static_cast<double>(sample.size());
    after += static_cast<double>(made == 0 ? sample.size() : made);
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  const double made_per_s = before / 1e6 / std::max(seconds, 1e-9);
  if (carried == 0) return before > gain_min * after;
  // The processor compresses while the link sends: the slower of both sets the pace.
  return std::min(made_per_s, carried * before / after) > gain_min * carried;
}

}  // namespace pyccl::runtime
