// See outer.hpp. Plain loops: the compiler vectorizes them, and what is done to an element does not
// depend on its neighbours, so neither does its rounding on the width.
#include "kernels/outer.hpp"

#include "base/assert.hpp"
#include "kernels/floating_mode.hpp"

namespace pyccl::kernels {
namespace {

template <bool nesterov>
void step(float* __restrict params, float* __restrict buffer, const float* __restrict gradient,
          std::size_t count, float rate, float momentum) {
  for (std::size_t i = 0; i < count; ++i) {
    const float kept = momentum * buffer[i];
    const float moved = kept + gradient[i];
    buffer[i] = moved;
    const float ahead = momentum * moved;
    const float whole = nesterov ? gradient[i] + ahead : moved;
    const float scaled = rate * whole;
    params[i] = params[i] - scaled;
  }
}

}  // namespace

void outer_step(std::span<float> params, std::span<float> buffer, std::span<const float> gradient,
                const OuterStep& how) {
  PYCCL_ASSERT(params.size() == buffer.size() && params.size() == gradient.size());
  const FloatingMode mode;
  const auto run = how.nesterov ? step<true> : step<false>;
  run(params.data(), buffer.data(), gradient.data(), params.size(), how.rate, how.momentum);
}

}  // namespace pyccl::kernels
