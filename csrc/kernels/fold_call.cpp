// The frame around every fold.
#include "kernels/fold_call.hpp"

#include <algorithm>
#include <cmath>

#include "base/assert.hpp"
#include "kernels/floating_mode.hpp"

namespace pyccl::kernels {
namespace {

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
