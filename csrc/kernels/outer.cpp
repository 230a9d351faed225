// See outer.hpp. Plain loops: the compiler vectorizes them, and what is done to an element does not
// depend on its neighbours, so neither does its rounding on the width.
#include "kernels/outer.hpp"

#include <limits>

#include "base/assert.hpp"
#include "kernels/floating_mode.hpp"

namespace pyccl::kernels {
namespace {

// plain: divisor and limit do nothing, and cost nothing.
template <bool nesterov, bool plain>
void step(float* __restrict params, float* __restrict buffer, const float* __restrict gradient,
          std::size_t count, OuterStep how) {
  for (std::size_t i = 0; i < count; ++i) {
    const float mean = plain ? gradient[i] : gradient[i] / how.divisor;
    const float kept = how.momentum * buffer[i];
    const float sum = kept + mean;
    const float below = sum > how.limit ? how.limit : sum;
    const float bounded = below < -how.limit ? -how.limit : below;
    const float moved = plain ? sum : bounded;
    buffer[i] = moved;
    const float ahead = how.momentum * moved;
    const float whole = nesterov ? mean + ahead : moved;
    const float scaled = how.rate * whole;
    params[i] = params[i] - scaled;
  }
}

}  // namespace

void outer_step(std::span<float> params, std::span<float> buffer, std::span<const float> gradient,
                const OuterStep& how) {
  PYCCL_ASSERT(params.size() == buffer.size() && params.size() == gradient.size());
  const FloatingMode mode;
  const bool plain = how.divisor == 1.0F && how.limit == std::numeric_limits<float>::infinity();
  const auto run = how.nesterov ? (plain ? step<true, true> : step<true, false>)
                                : (plain ? step<false, true> : step<false, false>);
  run(params.data(), buffer.data(), gradient.data(), params.size(), how);
}

}  // namespace pyccl::kernels
