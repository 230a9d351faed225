// Guard zones and poison; see memory.hpp.
#include "sim/byte/memory.hpp"

#include <algorithm>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, size) static_cast<void>(0)
#define ASAN_UNPOISON_MEMORY_REGION(address, size) static_cast<void>(0)
#endif

namespace pyccl::sim {
namespace {

constexpr std::size_t guard_bytes = 64;
constexpr std::byte guard_value{0xa7};
constexpr std::byte poison_value{0x5d};

}  // namespace

GuardedBlock::GuardedBlock(std::size_t bytes, std::size_t shift)
    : begin_(guard_bytes + shift),
      size_(bytes),
      memory_(begin_ + bytes + guard_bytes, guard_value) {
  ASAN_POISON_MEMORY_REGION(memory_.data(), begin_);
  ASAN_POISON_MEMORY_REGION(data() + size_, guard_bytes);
}

GuardedBlock::~GuardedBlock() { ASAN_UNPOISON_MEMORY_REGION(memory_.data(), memory_.size()); }

bool GuardedBlock::filled(std::size_t from, std::size_t upto, std::byte value) const {
  const auto begin = memory_.begin();
  return std::all_of(begin + static_cast<std::ptrdiff_t>(from),
                     begin + static_cast<std::ptrdiff_t>(upto),
                     [value](std::byte each) { return each == value; });
}

bool GuardedBlock::guards_intact() {
  ASAN_UNPOISON_MEMORY_REGION(memory_.data(), memory_.size());
  const bool intact =
      filled(0, begin_, guard_value) && filled(begin_ + size_, memory_.size(), guard_value);
  ASAN_POISON_MEMORY_REGION(memory_.data(), begin_);
  ASAN_POISON_MEMORY_REGION(data() + size_, guard_bytes);
  return intact;
}

void GuardedBlock::poison() {
  std::fill_n(data(), size_, poison_value);
  ASAN_POISON_MEMORY_REGION(data(), size_);
}

bool GuardedBlock::poison_intact() {
  ASAN_UNPOISON_MEMORY_REGION(memory_.data(), memory_.size());
  const bool intact = filled(begin_, begin_ + size_, poison_value) && guards_intact();
  ASAN_POISON_MEMORY_REGION(memory_.data(), memory_.size());
  return intact;
}

}  // namespace pyccl::sim
