// x86 processors since about 2013 (AVX2, F16C and FMA).
#if defined(__x86_64__)

#define PYCCL_VECTOR_BYTES 32
#include "kernels/target_body.hpp"
#include "kernels/targets.hpp"

namespace pyccl::kernels {

constinit const Target avx2_target = make_target("avx2");

}  // namespace pyccl::kernels

#endif
