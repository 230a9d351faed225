// The memory that the two ends of a stream share, and its mapping into this process.
//
// The other process may write anything there at any time. So whatever it says is read once, checked
// and kept; what this end knows by itself is never read back from there; and the size is sealed,
// since memory that is cut off under a mapping kills whoever touches it.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/file_descriptor.hpp"
#include "base/status.hpp"

namespace pyccl::transport::shm {

// What one processor writes lies apart from what another one does; processors fetch lines in pairs.
inline constexpr std::size_t apart = 128;

using Nonce = std::array<std::uint64_t, 2>;

enum class Ending : std::uint32_t { open = 0, no_more_writes = 1, closed = 2 };

// A ring of bytes. Positions count all bytes there ever were.
struct Direction {
  alignas(apart) std::atomic<std::uint64_t> written;  // by the end that writes
  std::atomic<Ending> ending;
  alignas(apart) std::atomic<std::uint64_t> read;  // by the end that reads
};

// What an end that is going to wait wants to be woken for; see ShmStream.
struct Sleep {
  static constexpr std::uint32_t for_data = 1;
  static constexpr std::uint32_t for_room = 2;
  alignas(apart) std::atomic<std::uint32_t> wants;
  std::atomic<std::uint64_t> room_at;  // the other end's `read` at which there is enough
  std::atomic<std::uint64_t> loan_at;  // or the loan with whose end there is
};

// What may be lent at once, in numbers; see loans.hpp.
inline constexpr std::size_t loans_max = 64;
struct LoanSlot {
  alignas(64) std::atomic<std::uint64_t> state;
};

// Where an end can be found, for those who may read its memory.
struct Whereabouts {
  std::uint64_t pid;
  std::uint64_t mark_at;  // address
  Nonce mark;
};

// Fresh memory is all 0, which is where everything begins.
struct Region {
  Nonce question;              // by the end that offers
  Nonce answer;                // by the other one, before it says so
  Whereabouts whereabouts[2];  // likewise
  Direction directions[2];     // [i] is written by end i; end 0 has made the offer
  Sleep sleeps[2];
  std::atomic<bool> borrows[2];  // end i can read the other one's memory
  LoanSlot loans[2][loans_max];  // [i] are lent by end i
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(std::atomic<Ending>::is_always_lock_free);
static_assert(std::atomic<bool>::is_always_lock_free);

class Mapping {
 public:
  static constexpr std::size_t ring_bytes_min = 64;
  static constexpr std::size_t ring_bytes_max = 1 << 26;

  // New memory with rings of `ring_bytes`, a power of two. It has a descriptor and no name, so
  // nothing of it is left when both processes have gone.
  static Result<Mapping> create(std::size_t ring_bytes);
  // Somebody else's; refused if it is not what create() makes.
  static Result<Mapping> open(FileDescriptor fd, std::size_t ring_bytes);

  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping();

  Region& region() const { return *static_cast<Region*>(memory_); }
  std::span<std::byte> ring(std::size_t direction) const;
  int fd() const { return fd_.get(); }
  void close_fd() { fd_.reset(); }

 private:
  Mapping(FileDescriptor fd, void* memory, std::size_t ring_bytes);
  static Result<Mapping> map(FileDescriptor fd, std::size_t ring_bytes);

  FileDescriptor fd_;
  void* memory_ = nullptr;
  std::size_t ring_bytes_ = 0;
};

}  // namespace pyccl::transport::shm
