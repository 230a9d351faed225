// See packed_data.hpp. A compressed segment is the width in one byte, and a frame of zstd.
#include "engine/packed_data.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "kernels/shuffle.hpp"

namespace pyccl::engine {

using collectives::Range;
using collectives::Source;

PackedData::PackedData(PlainData& plain, Extent extent, std::span<const ByteView> pieces,
                       std::span<const std::uint8_t> widths, MemoryPool& pool, kernels::Zstd& zstd)
    : plain_(plain),
      pool_(pool),
      zstd_(zstd),
      packer_(zstd),
      scratch_(pool.take(2 * extent.segment)),
      segment_(extent.segment),
      widths_(widths.begin(), widths.end()) {
  PYCCL_ASSERT(widths.empty() || widths.size() == pieces.size());
  zstd.prepare();
  if (widths.empty()) return;
  packed_ = pool.take(extent.inputs);
  std::uint64_t end = 0;
  for (const ByteView piece : pieces) ends_.push_back(end += piece.size());
}

PackedData::~PackedData() {
  pool_.give_back(std::move(packed_));
  pool_.give_back(std::move(scratch_));
}

unsigned PackedData::width_at(std::uint64_t offset) const {
  const auto piece = std::ranges::upper_bound(ends_, offset) - ends_.begin();
  return widths_[static_cast<std::size_t>(piece)];
}

void PackedData::outgoing(Source source, Range range, transport::Pieces& pieces) {
  transport::Pieces plain;
  plain_.outgoing(source, range, plain);
  const std::uint64_t offset = range.begin * plain_.memory_bytes();
  const auto size = static_cast<std::size_t>(range.size() * plain_.memory_bytes());
  plain_bytes_ += size;
  const bool tries = !widths_.empty() && source == Source::input && size > 1 && packer_.worth_it();
  if (tries) {
    PYCCL_ASSERT(size <= segment_);
    std::byte* whole = scratch_.data();
    for (const ByteView piece : plain.view()) {
      std::memcpy(whole, piece.data(), piece.size());
      whole += piece.size();
    }
    const MutableByteView shuffled(scratch_.data() + segment_, size);
    const unsigned width = width_at(offset);
    kernels::shuffle({scratch_.data(), size}, width, shuffled);
    std::byte* packed = packed_.data() + offset;
    // Shorter by one at least, or the receiver could not tell.
    const std::size_t made = packer_.compress(shuffled, {packed + 1, size - 2});
    if (made > 0) {
      PYCCL_MARK("compressed bytes of a state");
      packed[0] = static_cast<std::byte>(width);
      packer_.sent(made + 1);
      return pieces.push({packed, made + 1});
    }
  }
  for (const ByteView piece : plain.view()) pieces.push(piece);
}

bool PackedData::unpack(ByteView packed, MutableByteView to) {
  const auto width = std::to_integer<unsigned>(packed[0]);
  if (width < 1 || width > kernels::shuffle_width_max || to.size() > segment_) return false;
  const MutableByteView shuffled(scratch_.data(), to.size());
  if (!zstd_.decompress(packed.subspan(1), shuffled)) return false;
  kernels::unshuffle(shuffled, width, to);
  return true;
}

}  // namespace pyccl::engine
