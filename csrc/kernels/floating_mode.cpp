// The control word of each architecture.
#include "kernels/floating_mode.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace pyccl::kernels {
namespace {

#if defined(__SSE__)
constexpr std::uint64_t standard = 0x1f80;  // nearest even, subnormals kept, no traps
constexpr std::uint64_t flags = 0x3f;       // what happened so far; no part of the mode
std::uint64_t read() { return _mm_getcsr(); }
void write(std::uint64_t word) { _mm_setcsr(static_cast<std::uint32_t>(word)); }
#elif defined(__aarch64__)
constexpr std::uint64_t standard = 0;
constexpr std::uint64_t flags = 0;
std::uint64_t read() {
  std::uint64_t word;
  __asm__ volatile("mrs %0, fpcr" : "=r"(word));
  return word;
}
void write(std::uint64_t word) { __asm__ volatile("msr fpcr, %0" : : "r"(word) : "memory"); }
#else
constexpr std::uint64_t standard = 0;
constexpr std::uint64_t flags = 0;
std::uint64_t read() { return standard; }
void write(std::uint64_t) {}
#endif

bool is_standard(std::uint64_t word) { return (word & ~flags) == standard; }

}  // namespace

FloatingMode::FloatingMode() : saved_(read()) {
  if (!is_standard(saved_)) write(standard);
}

FloatingMode::~FloatingMode() {
  if (!is_standard(saved_)) write(saved_);
}

}  // namespace pyccl::kernels
