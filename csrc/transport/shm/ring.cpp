// Copying in and out; see ring.hpp.
//
// Positions are published with the strongest order: whoever is going to sleep says so first and
// looks at them then, whoever moves them looks then whether somebody sleeps (stream.cpp). One of
// the two sees the other.
#include "transport/shm/ring.hpp"

#include <algorithm>
#include <cstring>

namespace pyccl::transport::shm {

namespace {

// So much is copied before the other end, which may be waiting for it in a loop, is told.
constexpr std::size_t stride = 32 * 1024;

}  // namespace

std::size_t RingWriter::room() {
  const std::uint64_t read = shared_->read.load();
  // Unsigned, so a position that has gone back is far too large a step as well.
  if (read - read_ > written_ - read_) {
    broken_ = true;
    return 0;
  }
  read_ = read;
  return ring_.size() - static_cast<std::size_t>(written_ - read_);
}

bool RingWriter::has_room(std::size_t bytes) {
  if (broken_) return false;
  return ring_.size() - static_cast<std::size_t>(written_ - read_) >= bytes || room() >= bytes;
}

std::size_t RingWriter::write(std::span<const ByteView> parts) {
  std::size_t total = 0;
  std::size_t told = 0;
  std::size_t left = broken_ ? 0 : room();
  for (ByteView part : parts) {
    while (!part.empty() && left > 0) {
      const ByteView step = part.first(std::min({part.size(), left, stride}));
      copy(step);
      part = part.subspan(step.size());
      left -= step.size();
      total += step.size();
      if (total - told < stride) continue;
      shared_->written.store(written_, std::memory_order_release);
      told = total;
    }
  }
  if (total > 0) shared_->written.store(written_);
  return total;
}

void RingWriter::copy(ByteView from) {
  const std::size_t at = static_cast<std::size_t>(written_) & (ring_.size() - 1);
  const std::size_t straight = std::min(from.size(), ring_.size() - at);
  std::memcpy(ring_.data() + at, from.data(), straight);
  if (straight < from.size()) {
    std::memcpy(ring_.data(), from.data() + straight, from.size() - straight);
  }
  written_ += from.size();
}

std::size_t RingReader::available() {
  const std::uint64_t written = shared_->written.load();
  if (written - read_ > ring_.size() || written - read_ < written_ - read_) {
    broken_ = true;
    return 0;
  }
  written_ = written;
  return static_cast<std::size_t>(written_ - read_);
}

bool RingReader::empty() {
  if (broken_) return true;
  return written_ == read_ && available() == 0;
}

std::size_t RingReader::read(std::span<const MutableByteView> parts) {
  std::size_t total = 0;
  std::size_t told = 0;
  std::size_t left = broken_ ? 0 : available();
  for (MutableByteView part : parts) {
    while (!part.empty() && left > 0) {
      const MutableByteView step = part.first(std::min({part.size(), left, stride}));
      copy(step);
      part = part.subspan(step.size());
      left -= step.size();
      total += step.size();
      if (total - told < stride) continue;
      shared_->read.store(read_, std::memory_order_release);
      told = total;
    }
  }
  if (total > 0) shared_->read.store(read_);
  return total;
}

void RingReader::copy(MutableByteView to) {
  const std::size_t at = static_cast<std::size_t>(read_) & (ring_.size() - 1);
  const std::size_t straight = std::min(to.size(), ring_.size() - at);
  std::memcpy(to.data(), ring_.data() + at, straight);
  if (straight < to.size()) {
    std::memcpy(to.data() + straight, ring_.data(), to.size() - straight);
  }
  read_ += to.size();
}

}  // namespace pyccl::transport::shm
