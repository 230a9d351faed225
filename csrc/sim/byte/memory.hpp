// A caller's array under watch: guard zones on both sides, and poison behind the call's end. Under
// AddressSanitizer guards and poison trap reads as well as writes; elsewhere writes show when the
// zones are looked at, and reads show in the results that poison gets into.
#pragma once

#include <cstddef>
#include <vector>

#include "base/bytes.hpp"

namespace pyccl::sim {

class GuardedBlock {
 public:
  // `shift` bytes off alignment.
  GuardedBlock(std::size_t bytes, std::size_t shift);
  ~GuardedBlock();
  GuardedBlock(const GuardedBlock&) = delete;
  GuardedBlock& operator=(const GuardedBlock&) = delete;

  std::byte* data() { return memory_.data() + begin_; }
  const std::byte* data() const { return memory_.data() + begin_; }
  std::size_t size() const { return size_; }

  bool guards_intact();
  // From here on nobody has any business here.
  void poison();
  bool poison_intact();

 private:
  bool filled(std::size_t from, std::size_t upto, std::byte value) const;

  std::size_t begin_;
  std::size_t size_;
  std::vector<std::byte> memory_;
};

}  // namespace pyccl::sim
