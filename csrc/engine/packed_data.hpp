// Bytes that are only moved, compressed on their way where their sender wants that: shuffled by the
// width of their numbers, then by zstd. A segment that does not get shorter travels as it is, which
// its length tells.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/packer.hpp"
#include "engine/part_data.hpp"
#include "engine/part_memory.hpp"
#include "engine/plain_data.hpp"
#include "kernels/zstd.hpp"

namespace pyccl::engine {

class PackedData final : public PartData {
 public:
  struct Extent {
    std::uint64_t inputs = 0;   // bytes
    std::uint64_t segment = 0;  // of one at most
  };
  // `pieces` of the input and `widths` of the numbers in each; none: nothing is compressed here.
  PackedData(PlainData& plain, Extent extent, std::span<const ByteView> pieces,
             std::span<const std::uint8_t> widths, MemoryPool& pool, kernels::Zstd& zstd);
  ~PackedData() override;

  std::uint64_t wire_bytes(bool partial) const override { return plain_.wire_bytes(partial); }
  std::uint64_t memory_bytes() const override { return plain_.memory_bytes(); }
  void outgoing(collectives::Source, collectives::Range, transport::Pieces&) override;
  void arriving(collectives::Range range, bool first, transport::MutablePieces& target) override {
    plain_.arriving(range, first, target);
  }
  void arrived(collectives::Range range) override { plain_.arrived(range); }
  bool may_be_packed(bool partial) const override { return !partial; }
  bool unpack(ByteView packed, MutableByteView to) override;
  void fold(const FoldSegment& segment) override { plain_.fold(segment); }
  void copy(collectives::Range from, std::uint64_t begin) override { plain_.copy(from, begin); }

  std::uint64_t plain_bytes() const { return plain_bytes_; }
  std::uint64_t packed_bytes() const { return packer_.bytes_sent(); }

 private:
  unsigned width_at(std::uint64_t offset) const;

  PlainData& plain_;
  MemoryPool& pool_;
  kernels::Zstd& zstd_;
  Packer packer_;
  LargeBuffer packed_;   // by place in the input: no segment gets longer
  LargeBuffer scratch_;  // two segments: as it is, and shuffled
  std::uint64_t segment_;
  std::vector<std::uint64_t> ends_;  // of the pieces
  std::vector<std::uint8_t> widths_;
  std::uint64_t plain_bytes_ = 0;
};

}  // namespace pyccl::engine
