// The targets that this build holds. A new one is a target_*.cpp, its flags in cmake/kernels.cmake,
// a line here, and a line in dispatch.cpp that says which processors run it.
#pragma once

#include "kernels/kernels.hpp"

namespace pyccl::kernels {

extern const Target scalar_target;
#if defined(__x86_64__)
extern const Target avx2_target;
extern const Target avx512_target;
#elif defined(__aarch64__)
extern const Target neon_target;
#endif

}  // namespace pyccl::kernels
