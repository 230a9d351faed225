// Descriptors and forks; see file_descriptor.hpp.
#include "base/file_descriptor.hpp"

#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>

namespace pyccl {

namespace {

// A bit for each descriptor that is ours; numbers beyond, which few processes reach, stay open in a
// child. Bits and not a list: a fork may come while another thread opens or closes one.
constexpr std::size_t words = 2048;
std::array<std::atomic<std::uint64_t>, words> ours;

std::atomic<std::uint64_t>* word_of(int fd) {
  const auto index = static_cast<std::size_t>(fd) / 64;
  return index < words ? &ours[index] : nullptr;
}

std::uint64_t bit_of(int fd) { return std::uint64_t{1} << (fd % 64); }

void close_in_child() {
  for (std::size_t i = 0; i < words; ++i) {
    const std::uint64_t bits = ours[i].exchange(0, std::memory_order_relaxed);
    for (int bit = 0; bit < 64; ++bit) {
      if ((bits >> bit & 1) != 0) ::close(static_cast<int>(i * 64) + bit);
    }
  }
}

// Marked before it is used and unmarked before it is closed: a fork in between leaves one open at
// most, and never closes somebody else's.
void mark(int fd) {
  [[maybe_unused]] static const int registered = ::pthread_atfork(nullptr, nullptr, close_in_child);
  if (auto* word = word_of(fd)) word->fetch_or(bit_of(fd), std::memory_order_relaxed);
}

// False where a child has closed it already.
bool unmark(int fd) {
  auto* word = word_of(fd);
  if (word == nullptr) return true;
  return (word->fetch_and(~bit_of(fd), std::memory_order_relaxed) & bit_of(fd)) != 0;
}

}  // namespace

FileDescriptor& FileDescriptor::operator=(FileDescriptor&& other) noexcept {
  if (this == &other) return *this;
  reset();
  fd_ = std::exchange(other.fd_, -1);
  return *this;
}

void FileDescriptor::reset(int fd) {
  const int error = errno;
  if (fd_ >= 0 && unmark(fd_)) ::close(fd_);
  fd_ = fd;
  if (fd_ >= 0) mark(fd_);
  errno = error;
}

}  // namespace pyccl
