// process_vm_readv, and the page that the mark stands on; see foreign_memory.hpp.
#include "transport/shm/foreign_memory.hpp"

#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "base/assert.hpp"

namespace pyccl::transport::shm {

namespace {

constexpr std::size_t page_bytes = 4096;

void* at(std::uint64_t address) { return reinterpret_cast<void*>(address); }

}  // namespace

std::shared_ptr<const Mark> Mark::make(const Nonce& nonce) {
  void* page =
      ::mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return nullptr;
  if (::madvise(page, page_bytes, MADV_WIPEONFORK) != 0) {
    ::munmap(page, page_bytes);
    return nullptr;
  }
  std::memcpy(page, nonce.data(), sizeof nonce);
  return std::shared_ptr<const Mark>(new Mark(page, nonce));
}

Mark::Mark(void* page, const Nonce& nonce) : page_(page), nonce_(nonce) {}

Mark::~Mark() { ::munmap(page_, page_bytes); }

Whereabouts Mark::whereabouts() const {
  return {static_cast<std::uint64_t>(::getpid()), reinterpret_cast<std::uintptr_t>(page_), nonce_};
}

ForeignMemory::Outcome ForeignMemory::read(std::span<const ForeignPiece> from,
                                           std::span<const MutableByteView> to) const {
  PYCCL_ASSERT(from.size() <= pieces_max && to.size() <= pieces_max);
  Nonce mark{};
  std::array<iovec, pieces_max + 1> there;
  std::array<iovec, pieces_max + 1> here;
  std::size_t expected = sizeof mark;
  there[0] = {at(whereabouts_.mark_at), sizeof mark};
  here[0] = {mark.data(), sizeof mark};
  for (std::size_t i = 0; i < from.size(); ++i) {
    there[i + 1] = {at(from[i].address), static_cast<std::size_t>(from[i].size)};
    expected += from[i].size;
  }
  for (std::size_t i = 0; i < to.size(); ++i) here[i + 1] = {to[i].data(), to[i].size()};
  const ssize_t count = ::process_vm_readv(static_cast<pid_t>(whereabouts_.pid), here.data(),
                                           to.size() + 1, there.data(), from.size() + 1, 0);
  if (count < 0) return errno == ESRCH ? Outcome::gone : Outcome::unreadable;
  if (static_cast<std::size_t>(count) >= sizeof mark && mark != whereabouts_.mark) {
    return Outcome::gone;
  }
  return static_cast<std::size_t>(count) == expected ? Outcome::complete : Outcome::unreadable;
}

}  // namespace pyccl::transport::shm
