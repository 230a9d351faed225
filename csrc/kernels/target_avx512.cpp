// x86 processors with AVX-512 F, BW, DQ and VL.
#if defined(__x86_64__)

#define PYCCL_VECTOR_BYTES 64
#include "kernels/target_body.hpp"
#include "kernels/targets.hpp"

namespace pyccl::kernels {

constinit const Target avx512_target = make_target("avx512");

}  // namespace pyccl::kernels

#endif
