// One number at a time: what every processor can run, and what every other target must equal.
#define PYCCL_VECTOR_BYTES 0
#include "kernels/target_body.hpp"
#include "kernels/targets.hpp"

namespace pyccl::kernels {

constinit const Target scalar_target = make_target("scalar");

}  // namespace pyccl::kernels
