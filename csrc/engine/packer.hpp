// Blocks as they are sent, compressed without loss where that makes them shorter.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "base/memory.hpp"
#include "kernels/zstd.hpp"

namespace pyccl::engine {

// One attempt's tally, by which it goes on compressing or gives up.
class Packer {
 public:
  explicit Packer(kernels::Zstd& zstd) : zstd_(zstd) {}

  // As Zstd::compress().
  std::size_t compress(ByteView blocks, MutableByteView to);
  bool worth_it() const;
  void sent(std::size_t bytes) { bytes_sent_ += bytes; }
  std::uint64_t bytes_sent() const { return bytes_sent_; }

 private:
  kernels::Zstd& zstd_;
  std::uint64_t tried_ = 0;  // bytes before compression
  std::uint64_t made_ = 0;   // and after it
  std::uint64_t bytes_sent_ = 0;
};

// The segments of one buffer of blocks, of which no two overlap in part. Each is compressed once
// for all ranks that it goes to, and stays: what has been sent may still be on its way.
class PackedBlocks {
 public:
  PackedBlocks(std::uint64_t blocks, std::size_t block_bytes, MemoryPool& pool);
  ~PackedBlocks() { pool_.give_back(std::move(memory_)); }
  PackedBlocks(const PackedBlocks&) = delete;
  PackedBlocks& operator=(const PackedBlocks&) = delete;

  // The segment that begins with block `first`: what to send instead of it.
  ByteView get(std::uint64_t first, ByteView segment, Packer& packer);

 private:
  MemoryPool& pool_;
  std::size_t block_bytes_;
  LargeBuffer memory_;
  std::vector<std::uint32_t> sizes_;  // by first block
};

}  // namespace pyccl::engine
