// Large buffers that are used again: touching fresh pages costs more than copying into old ones.
#pragma once

#include <cstddef>
#include <vector>

#include "base/bytes.hpp"

namespace pyccl {

// Page-aligned memory without initial value; asks for huge pages where it is large.
class LargeBuffer {
 public:
  LargeBuffer() = default;
  explicit LargeBuffer(std::size_t bytes);
  ~LargeBuffer();
  LargeBuffer(LargeBuffer&& other) noexcept;
  LargeBuffer& operator=(LargeBuffer&& other) noexcept;

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Keeps what was given back, so that the next operation of the same size finds warm pages. trim()
// lets go of it. Throws std::bad_alloc if there is no such memory, with nothing kept any more.
class MemoryPool {
 public:
  LargeBuffer take(std::size_t bytes);
  // For tests of what happens without memory: larger buffers are not to be had.
  void limit(std::size_t bytes) { bytes_max_ = bytes; }
  void give_back(LargeBuffer buffer);
  void trim() { idle_.clear(); }
  std::size_t idle_bytes() const;

 private:
  std::vector<LargeBuffer> idle_;
  std::size_t bytes_max_ = ~std::size_t{0};
};

// Cache-sized pieces of equal length, last in first out, so that a slot is warm when it is used.
class SlotPool {
 public:
  explicit SlotPool(std::size_t slot_bytes) : slot_bytes_(slot_bytes) {}
  std::byte* take();
  void give_back(std::byte* slot);
  // Frees what is idle; slots that are out stay valid.
  void trim();
  std::size_t slots_out() const { return out_; }
  std::size_t slot_bytes() const { return slot_bytes_; }

 private:
  std::size_t slot_bytes_;
  std::size_t out_ = 0;
  std::vector<std::byte*> idle_;

 public:
  ~SlotPool() { trim(); }
  SlotPool(const SlotPool&) = delete;
  SlotPool& operator=(const SlotPool&) = delete;
};

}  // namespace pyccl
