// Memory that is asked of the system once and used many times.
#include "base/memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <utility>

#include "base/assert.hpp"

namespace pyccl {
namespace {

constexpr std::size_t huge_page_bytes = 2 << 20;
constexpr std::size_t slot_alignment = 4096;
// No process has more. The sanitizers' allocators abort where the system's says no.
constexpr std::size_t address_space_bytes = std::size_t{1} << 47;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

}  // namespace

LargeBuffer::LargeBuffer(std::size_t bytes) {
  if (bytes == 0) return;
  if (bytes > address_space_bytes) throw std::bad_alloc();
  const bool large = bytes >= huge_page_bytes;
  size_ = round_up(bytes, large ? huge_page_bytes : slot_alignment);
  data_ =
      static_cast<std::byte*>(std::aligned_alloc(large ? huge_page_bytes : slot_alignment, size_));
  if (data_ == nullptr) throw std::bad_alloc();
  if (large) madvise(data_, size_, MADV_HUGEPAGE);
}

LargeBuffer::~LargeBuffer() { std::free(data_); }

LargeBuffer::LargeBuffer(LargeBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

LargeBuffer& LargeBuffer::operator=(LargeBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

LargeBuffer MemoryPool::take(std::size_t bytes) {
  // The smallest that fits and is not wastefully large.
  auto best = idle_.end();
  for (auto it = idle_.begin(); it != idle_.end(); ++it) {
    if (it->size() < bytes || it->size() > 2 * bytes + huge_page_bytes) continue;
    if (best == idle_.end() || it->size() < best->size()) best = it;
  }
  if (best == idle_.end()) {
    // What does not fit would only add up.
    idle_.clear();
    if (bytes > bytes_max_) throw std::bad_alloc();
    return LargeBuffer(bytes);
  }
  LargeBuffer found = std::move(*best);
  idle_.erase(best);
  return found;
}

void MemoryPool::give_back(LargeBuffer buffer) {
  if (buffer.size() > 0) idle_.push_back(std::move(buffer));
}

std::size_t MemoryPool::idle_bytes() const {
  std::size_t total = 0;
  for (const auto& buffer : idle_) total += buffer.size();
  return total;
}

std::byte* SlotPool::take() {
  if (!idle_.empty()) {
    std::byte* slot = idle_.back();
    idle_.pop_back();
    ++out_;
    return slot;
  }
  auto* slot = static_cast<std::byte*>(
      std::aligned_alloc(slot_alignment, round_up(slot_bytes_, slot_alignment)));
  if (slot == nullptr) throw std::bad_alloc();
  ++out_;
  return slot;
}

void SlotPool::give_back(std::byte* slot) {
  PYCCL_ASSERT(out_ > 0 && slot != nullptr);
  --out_;
  idle_.push_back(slot);
}

void SlotPool::trim() {
  for (std::byte* slot : idle_) std::free(slot);
  idle_.clear();
}

}  // namespace pyccl
