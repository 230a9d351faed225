// The frame around every fold, and the floating-point mode that all ranks must share.
#include "kernels/fold_call.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base/assert.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace pyccl::kernels {
namespace {

// A library built with -ffast-math switches subnormals off in the thread that loads it, and threads
// inherit that mode: without this guard one rank's imports would decide about its results.
class FloatingMode {
 public:
  FloatingMode() : saved_(read()) {
    if ((saved_ & ~flags) != standard) write(standard);
  }
  ~FloatingMode() {
    if ((saved_ & ~flags) != standard) write(saved_);
  }
  FloatingMode(const FloatingMode&) = delete;
  FloatingMode& operator=(const FloatingMode&) = delete;

 private:
#if defined(__SSE__)
  using Word = std::uint32_t;
  static constexpr Word standard = 0x1f80;  // nearest even, subnormals kept, no traps
  static constexpr Word flags = 0x3f;       // what happened so far; no part of the mode
  static Word read() { return _mm_getcsr(); }
  static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = std::uint64_t;
  static constexpr Word standard = 0;
  static constexpr Word flags = 0;
  static Word read() {
    Word word;
    __asm__ volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) { __asm__ volatile("msr fpcr, %0" : : "r"(word) : "memory"); }
#else
  using Word = std::uint32_t;
  static constexpr Word standard = 0;
  static constexpr Word flags = 0;
  static Word read() { return standard; }
  static void write(Word) {}
#endif
  Word saved_;
};

// Multiplying by 2^-k rounds like dividing by 2^k; the bound keeps 2^-k normal in f32.
bool is_small_power_of_two(double value) {
  int exponent = 0;
  return std::frexp(value, &exponent) == 0.5 && std::abs(exponent) < 120;
}

}  // namespace

void run_fold(const FoldArguments& arguments, const FoldBodies& bodies) {
  const auto& [destination, sources, weights, divisor, count] = arguments;
  PYCCL_ASSERT(!sources.empty());
  PYCCL_ASSERT(weights.empty() || weights.size() == sources.size());
  const auto is_one = [](double weight) { return weight == 1; };
  const bool weighted = !std::all_of(weights.begin(), weights.end(), is_one);
  PYCCL_ASSERT(bodies.weighted != nullptr || (!weighted && divisor == 1));
  if (count == 0) return;
  const FoldCall call{.destination = destination,
                      .sources = sources.data(),
                      .source_count = sources.size(),
                      .weights = weighted ? weights.data() : nullptr,
                      .divisor = divisor,
                      .exact_reciprocal = is_small_power_of_two(divisor),
                      .count = count};
  const FoldBody body = weighted ? bodies.weighted : bodies.plain;
  if (!bodies.floating) return body(call);
  const FloatingMode mode;
  body(call);
}

}  // namespace pyccl::kernels
