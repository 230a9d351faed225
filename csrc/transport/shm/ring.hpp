// The two ends of a ring of bytes in shared memory. Each knows its own position by itself and takes
// the other's from the memory only after it has checked that it can be true.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.hpp"
#include "transport/shm/region.hpp"

namespace pyccl::transport::shm {

class RingWriter {
 public:
  RingWriter(Direction& shared, std::span<std::byte> ring) : shared_(&shared), ring_(ring) {}

  // Copies what there is room for. What is written is there for the reader, in this order, before
  // anything that is written to shared memory later.
  std::size_t write(std::span<const ByteView> parts);
  bool has_room(std::size_t bytes);
  std::size_t capacity() const { return ring_.size(); }
  std::uint64_t written() const { return written_; }
  bool broken() const { return broken_; }  // the other end claims to have read what it can't have

 private:
  std::size_t room();
  void copy(ByteView from);

  Direction* shared_;
  std::span<std::byte> ring_;
  std::uint64_t written_ = 0;
  std::uint64_t read_ = 0;  // as far as known
  bool broken_ = false;
};

class RingReader {
 public:
  RingReader(Direction& shared, std::span<std::byte> ring) : shared_(&shared), ring_(ring) {}

  std::size_t read(std::span<const MutableByteView> parts);
  bool empty();
  std::uint64_t position() const { return read_; }
  bool broken() const { return broken_; }

 private:
  std::size_t available();
  void copy(MutableByteView to);

  Direction* shared_;
  std::span<std::byte> ring_;
  std::uint64_t read_ = 0;
  std::uint64_t written_ = 0;  // as far as known
  bool broken_ = false;
};

}  // namespace pyccl::transport::shm
