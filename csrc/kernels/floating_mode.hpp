// The floating-point mode that all ranks must share, for as long as one of these lives.
//
// A library built with -ffast-math switches subnormals off in the thread that loads it, and threads
// inherit that mode: without this guard one rank's imports would decide about its results.
#pragma once

#include <cstdint>

namespace pyccl::kernels {

// Sets nearest even, subnormals kept, no traps; gives the calling thread's mode and flags back.
class FloatingMode {
 public:
  FloatingMode();
  ~FloatingMode();
  FloatingMode(const FloatingMode&) = delete;
  FloatingMode& operator=(const FloatingMode&) = delete;

 private:
  std::uint64_t saved_;
};

}  // namespace pyccl::kernels
