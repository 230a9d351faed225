// See packer.hpp.
#include "engine/packer.hpp"

#include <algorithm>

#include "base/mark.hpp"

namespace pyccl::engine {
namespace {

constexpr std::uint32_t not_tried = 0;
constexpr std::uint32_t not_shorter = 1;  // no frame of zstd is

}  // namespace

std::size_t Packer::compress(ByteView blocks, MutableByteView to) {
  const std::size_t size = zstd_.compress(blocks, to);
  tried_ += blocks.size();
  made_ += size == 0 ? blocks.size() : size;
  return size;
}

// Measured on the first segments: what gets shorter by less than a thirtieth is not worth the time.
bool Packer::worth_it() const {
  constexpr std::uint64_t enough = 256 * 1024;
  return tried_ < enough || made_ < tried_ - tried_ / 32;
}

PackedBlocks::PackedBlocks(std::uint64_t blocks, std::size_t block_bytes, MemoryPool& pool)
    : pool_(pool),
      block_bytes_(block_bytes),
      memory_(pool.take(blocks * block_bytes)),
      sizes_(blocks, not_tried) {}

ByteView PackedBlocks::get(std::uint64_t first, ByteView segment, Packer& packer) {
  std::uint32_t& size = sizes_[first];
  std::byte* memory = memory_.data() + first * block_bytes_;
  if (size == not_tried) {
    size = not_shorter;
    if (packer.worth_it()) {
      const std::size_t made = packer.compress(segment, {memory, segment.size() - 1});
      size = std::max(static_cast<std::uint32_t>(made), not_shorter);
    }
  }
  if (size == not_shorter) return segment;
  PYCCL_MARK("compressed blocks");
  packer.sent(size);
  return {memory, size};
}

}  // namespace pyccl::engine
