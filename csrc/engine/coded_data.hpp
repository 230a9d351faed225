// Quantized payloads: a plan's element is one block, and every array, or share of one, begins a new
// one.
//
// What everybody is to have alike is rounded once and travels as the bytes that this has made:
//   input    is encoded where it is first sent, for all ranks it goes to; a fold of contributions
//            makes blocks of the own one, too, so each counts with the same rounding.
//   partial  sums travel in f32, or rounded to bf16.
//   result   a fold that is sent on is encoded by the rank that made it, and all, that rank too,
//            take what the blocks say. They are kept as they came for those they are sent on to.
//            Of an all-reduce in place they are all that there is of the result until it stands, so
//            that the input need not be kept.
// Folds add up in f32.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/memory.hpp"
#include "engine/packer.hpp"
#include "engine/part_data.hpp"
#include "engine/part_memory.hpp"
#include "engine/request.hpp"
#include "kernels/quantize.hpp"
#include "kernels/zstd.hpp"

namespace pyccl::engine {

// Results are rounded by other chances than contributions: their seed is this xor the given one.
inline constexpr std::uint64_t result_salt = 0x5851f42d4c957f2d;

class CodedData final : public PartData {
 public:
  // Bytes of an element, so of a block: where the arrays lie, on the wire, and as a partial sum.
  struct Sizes {
    std::uint64_t memory = 0;
    std::uint64_t coded = 0;
    std::uint64_t partial = 0;
    std::uint64_t largest() const { return std::max(memory, partial); }
  };
  static Sizes sizes_of(const Quantization&, kernels::DataType);

  struct Extent {
    std::uint64_t inputs = 0;  // blocks
    std::uint64_t results = 0;
    std::uint64_t segment = 0;  // of a segment at most
    bool held = false;          // results stay blocks until publish()
  };
  // `compresses`: as long as it makes blocks shorter, for links that are slower than that.
  CodedData(const Quantization&, double weight, PartMemory&, Extent, MemoryPool&, kernels::Zstd&,
            bool compresses);
  ~CodedData() override;

  std::uint64_t wire_bytes(bool partial) const override {
    return partial ? sizes_.partial : sizes_.coded;
  }
  std::uint64_t memory_bytes() const override { return sizes_.memory; }
  void outgoing(collectives::Source, collectives::Range, transport::Pieces&) override;
  void arriving(collectives::Range, bool first, transport::MutablePieces&) override;
  void arrived(collectives::Range) override;
  bool may_be_packed(bool partial) const override { return !partial; }
  bool unpack(ByteView packed, MutableByteView to) override { return zstd_.decompress(packed, to); }
  void fold(const FoldSegment&) override;
  void copy(collectives::Range from, std::uint64_t begin) override;

  // Of results that were held: writes some `bytes` of them. True: there are more.
  bool publish(std::uint64_t bytes);

  // The largest of the blocks that were made or read.
  float largest_step() const { return largest_step_; }
  // What would have been sent if the numbers had travelled as they are.
  std::uint64_t plain_bytes() const { return plain_bytes_; }
  // Of what was sent: compressed.
  std::uint64_t packed_bytes() const { return packer_.bytes_sent(); }

 private:
  ByteRange memory_of(collectives::Range) const;
  std::size_t numbers(collectives::Range) const;
  // Where blocks are that begin so many bytes behind others in the arrays.
  std::uint64_t coded(std::uint64_t memory_bytes) const {
    return memory_bytes / sizes_.memory * sizes_.coded;
  }
  // Draws go by the place in the array, so that they don't depend on what else is sent.
  kernels::RoundingChoice rounding(std::uint64_t seed, std::uint64_t place) const {
    return {quantization_.rounding, seed, place / sizes_.memory};
  }
  std::byte* input_blocks(collectives::Range);
  std::byte* result_blocks(collectives::Range);
  void encode_input(collectives::Range);
  void encode_input_to(std::byte* blocks, collectives::Range);
  void decode_into_result(const std::byte* blocks, collectives::Range);
  void begin_partial(collectives::Range);
  void add_coded(const std::byte* blocks, const FoldSegment&, double weight, bool first);
  void add_numbers(const Contribution&, const FoldSegment&, bool first);
  void widen_input(collectives::Range, float* numbers);
  void divide(const FoldSegment&);
  void finish(const FoldSegment&);
  void note(float step) { largest_step_ = std::max(largest_step_, step); }

  const Quantization& quantization_;
  double weight_;
  PartMemory& memory_;
  MemoryPool& pool_;
  Sizes sizes_;
  Extent extent_;
  std::uint64_t published_ = 0;  // blocks
  LargeBuffer inputs_;           // coded
  LargeBuffer results_;          // coded
  LargeBuffer scratch_;          // f32: the sum of a segment, and what is added to it
  float* sum_ = nullptr;
  float* next_ = nullptr;
  std::vector<bool> encoded_;  // by block of the input
  float largest_step_ = 0.0f;
  std::uint64_t plain_bytes_ = 0;
  kernels::Zstd& zstd_;
  Packer packer_;
  std::optional<PackedBlocks> packed_inputs_;  // where it compresses
  std::optional<PackedBlocks> packed_results_;
};

}  // namespace pyccl::engine
