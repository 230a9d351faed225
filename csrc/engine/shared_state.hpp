// Named tensors with a revision, in the caller's memory: their schema, their blocks, and what is
// known of the blocks' bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/digest.hpp"
#include "base/status.hpp"

namespace pyccl::engine {

// All members cut alike.
inline constexpr std::uint32_t state_block_bytes = 1 << 20;

struct Tensor {
  std::string name;
  std::string dtype;  // by any name; peers compare it, nobody interprets it
  std::vector<std::uint64_t> shape;
  std::byte* memory = nullptr;
  std::uint64_t bytes = 0;
};

class SharedState {
 public:
  // Tensors are put in the order of their names. Refused: two of one name, memory that two of them
  // share, more than the limits of one state allow. `strict`: part of the schema, see
  // SyncOptions::expect_next.
  static Result<SharedState> make(std::vector<Tensor> tensors, bool strict,
                                  std::uint32_t block_bytes_max = state_block_bytes);

  const std::vector<Tensor>& tensors() const { return tensors_; }
  std::uint64_t bytes() const { return bytes_; }
  bool strict() const { return strict_; }
  ByteView schema() const { return schema_; }
  const Digest& schema_digest() const { return schema_digest_; }

  // ---- blocks: no tensor shares one with another
  std::size_t block_count() const { return block_bytes_.size(); }
  std::uint32_t block_bytes_max() const { return block_bytes_max_; }
  const std::vector<std::uint32_t>& block_bytes() const { return block_bytes_; }
  MutableByteView block(std::size_t index) const;
  // Bytes of the numbers in it: 1 to 16.
  std::uint8_t width(std::size_t index) const { return widths_[tensor_of_[index]]; }

  // Reads the blocks [first, last). Threads may do so at once for ranges that don't meet.
  void digest_blocks(std::size_t first, std::size_t last);
  const std::vector<Digest>& block_digests() const { return block_digests_; }
  // Of schema and blocks, as they were when last read.
  Digest digest() const { return digest_with(block_digests_); }
  // Of this schema with such blocks.
  Digest digest_with(const std::vector<Digest>& blocks) const;

  // ---- what a sync does to it
  void overwrite(std::size_t block, const std::byte* bytes, const Digest& digest);
  // All blocks are those of `revision`.
  void complete(std::uint64_t revision);
  void synced() { last_synced_ = revision_; }

  std::uint64_t revision() const { return revision_; }
  // The caller's word that the tensors are what they should be, now of that revision.
  void set_revision(std::uint64_t revision);
  // There is no next revision any more.
  void forget_sync() { last_synced_.reset(); }
  // The caller has begun to write other bits than those of its revision, and has not ended.
  void spoil();
  // False: a sync has overwritten some tensors and failed before it had all of them.
  bool whole() const { return void_.empty(); }
  std::vector<std::string> void_tensors() const;
  // The revision after that of the last sync that succeeded; none before the first one.
  std::optional<std::uint64_t> next_revision() const;

 private:
  SharedState() = default;
  void divide();

  std::vector<Tensor> tensors_;
  bool strict_ = false;
  std::uint32_t block_bytes_max_ = state_block_bytes;
  std::uint64_t bytes_ = 0;
  Bytes schema_;
  Digest schema_digest_;
  std::vector<std::uint32_t> block_bytes_;
  std::vector<std::uint32_t> first_blocks_;  // by tensor
  std::vector<std::uint8_t> widths_;         // by tensor
  std::vector<std::uint32_t> tensor_of_;     // by block
  std::vector<Digest> block_digests_;
  std::uint64_t revision_ = 0;
  std::optional<std::uint64_t> last_synced_;
  std::vector<bool> void_;  // by tensor; empty: none is
};

}  // namespace pyccl::engine
