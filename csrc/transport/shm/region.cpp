// Memory without a name, sealed and mapped; see region.hpp.
#include "transport/shm/region.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <bit>
#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace pyccl::transport::shm {

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t rings_at = (sizeof(Region) + page - 1) / page * page;
constexpr int size_seals = F_SEAL_SHRINK | F_SEAL_GROW;

std::size_t bytes_of(std::size_t ring_bytes) { return rings_at + 2 * ring_bytes; }

Status failure(const std::string& what) {
  return {Code::io, what + ": " + std::generic_category().message(errno)};
}

}  // namespace

Result<Mapping> Mapping::create(std::size_t ring_bytes) {
  // Some systems insist that such memory holds no programs, older ones don't know the flag.
  constexpr unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  FileDescriptor fd(::memfd_create("pyccl", flags | MFD_NOEXEC_SEAL));
  if (!fd.valid() && errno == EINVAL) fd.reset(::memfd_create("pyccl", flags));
  if (!fd.valid()) return failure("no shared memory");
  // Taken now: where there is none left, the first touch would kill the process.
  if (::fallocate(fd.get(), 0, 0, static_cast<off_t>(bytes_of(ring_bytes))) != 0 ||
      ::fcntl(fd.get(), F_ADD_SEALS, size_seals | F_SEAL_SEAL) != 0) {
    return failure("no shared memory");
  }
  return map(std::move(fd), ring_bytes);
}

Result<Mapping> Mapping::open(FileDescriptor fd, std::size_t ring_bytes) {
  struct stat status{};
  if (!std::has_single_bit(ring_bytes) || ring_bytes < ring_bytes_min ||
      ring_bytes > ring_bytes_max || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      status.st_size != static_cast<off_t>(bytes_of(ring_bytes))) {
    return Status(Code::protocol_violation, "what was offered is no memory of this kind");
  }
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & size_seals) != size_seals) {
    return Status(Code::protocol_violation, "the memory that was offered could be cut off");
  }
  return map(std::move(fd), ring_bytes);
}

Result<Mapping> Mapping::map(FileDescriptor fd, std::size_t ring_bytes) {
  void* memory =
      ::mmap(nullptr, bytes_of(ring_bytes), PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) return failure("shared memory can't be mapped");
  return Mapping(std::move(fd), memory, ring_bytes);
}

Mapping::Mapping(FileDescriptor fd, void* memory, std::size_t ring_bytes)
    : fd_(std::move(fd)), memory_(memory), ring_bytes_(ring_bytes) {}

Mapping::Mapping(Mapping&& other) noexcept
    : fd_(std::move(other.fd_)),
      memory_(std::exchange(other.memory_, nullptr)),
      ring_bytes_(other.ring_bytes_) {}

Mapping::~Mapping() {
  if (memory_ != nullptr) ::munmap(memory_, bytes_of(ring_bytes_));
}

std::span<std::byte> Mapping::ring(std::size_t direction) const {
  return {static_cast<std::byte*>(memory_) + rings_at + direction * ring_bytes_, ring_bytes_};
}

}  // namespace pyccl::transport::shm
