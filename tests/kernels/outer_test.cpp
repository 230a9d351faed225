// The outer step: its bits, in every mode that a caller's thread may be in.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/prng.hpp"
#include "kernels/outer.hpp"

namespace pyccl::kernels {
namespace {

// Volatile: each value is rounded to f32 before the next operation sees it.
void reference(float& params, float& buffer, float gradient, const OuterStep& how) {
  const volatile float kept = how.momentum * buffer;
  const volatile float moved = kept + gradient;
  const volatile float ahead = how.momentum * moved;
  const volatile float sum = gradient + ahead;
  const volatile float scaled = how.rate * (how.nesterov ? sum : moved);
  buffer = moved;
  params = params - scaled;
}

bool same(float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); }

}  // namespace

TEST_CASE("outer step: numbers that have exact results") {
  std::vector<float> params{4.0F};
  std::vector<float> buffer{0.0F};
  const OuterStep how{.rate = 0.5F, .momentum = 0.5F, .nesterov = true};
  const float found[3][3] = {{1.0F, 3.25F, 1.0F}, {-2.0F, 4.625F, -1.5F}, {3.0F, 2.5625F, 2.25F}};
  for (const auto& [gradient, after, moved] : found) {
    const std::vector<float> given{gradient};
    outer_step(params, buffer, given, how);
    CHECK(params[0] == after);
    CHECK(buffer[0] == moved);
  }
}

TEST_CASE("outer step: each element as if it were alone, around every width") {
  Prng prng(5);
  const auto number = [&prng] {
    const double value = std::ldexp(static_cast<double>(prng.below(1U << 24)) - (1 << 23),
                                    static_cast<int>(prng.below(60)) - 50);
    return static_cast<float>(value);
  };
  for (const bool nesterov : {true, false}) {
    const OuterStep how{.rate = 0.7F, .momentum = 0.9F, .nesterov = nesterov};
    for (std::size_t size = 0; size < 100; ++size) {
      std::vector<float> params(size);
      std::vector<float> buffer(size);
      std::vector<float> gradient(size);
      for (std::size_t i = 0; i < size; ++i) {
        params[i] = number();
        buffer[i] = number();
        gradient[i] = number();
      }
      if (size > 5) gradient[5] = std::numeric_limits<float>::infinity();
      if (size > 6) params[6] = std::numeric_limits<float>::denorm_min();
      std::vector<float> expected = params;
      std::vector<float> moved = buffer;
      for (std::size_t i = 0; i < size; ++i) reference(expected[i], moved[i], gradient[i], how);
      outer_step(params, buffer, gradient, how);
      for (std::size_t i = 0; i < size; ++i) {
        REQUIRE(same(params[i], expected[i]));
        REQUIRE(same(buffer[i], moved[i]));
      }
    }
  }
}

}  // namespace pyccl::kernels
