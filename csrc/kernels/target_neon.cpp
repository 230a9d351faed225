// Every 64-bit ARM processor: NEON is part of the architecture.
#if defined(__aarch64__)

#define PYCCL_VECTOR_BYTES 16
#include "kernels/target_body.hpp"
#include "kernels/targets.hpp"

namespace pyccl::kernels {

constinit const Target neon_target = make_target("neon");

}  // namespace pyccl::kernels

#endif
