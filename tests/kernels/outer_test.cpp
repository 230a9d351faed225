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
  const volatile float mean = gradient / how.divisor;
  const volatile float kept = how.momentum * buffer;
  const volatile float whole = kept + mean;
  const volatile float moved =
      std::abs(whole) > how.limit ? std::copysign(how.limit, whole) : whole;
  const volatile float ahead = how.momentum * moved;
  const volatile float sum = mean + ahead;
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

TEST_CASE("outer step: what the limit of the buffer takes is gone") {
  std::vector<float> params{8.0F, 8.0F, 8.0F};
  std::vector<float> buffer{0.0F, 0.0F, 0.0F};
  const OuterStep how{
      .rate = 1.0F, .momentum = 0.5F, .nesterov = false, .divisor = 2.0F, .limit = 1.0F};
  outer_step(params, buffer, std::vector<float>{4.0F, -6.0F, 1.0F}, how);
  CHECK(buffer == std::vector<float>{1.0F, -1.0F, 0.5F});
  CHECK(params == std::vector<float>{7.0F, 9.0F, 7.5F});
  outer_step(params, buffer, std::vector<float>{0.0F, -6.0F, 0.0F}, how);
  CHECK(buffer == std::vector<float>{0.5F, -1.0F, 0.25F});
}

TEST_CASE("outer step: each element as if it were alone, around every width") {
  Prng prng(5);
  const auto number = [&prng] {
    const double value = std::ldexp(static_cast<double>(prng.below(1U << 24)) - (1 << 23),
                                    static_cast<int>(prng.below(60)) - 50);
    return static_cast<float>(value);
  };
  const OuterStep hows[] = {
      {.rate = 0.7F, .momentum = 0.9F, .nesterov = true},
      {.rate = 0.7F, .momentum = 0.9F, .nesterov = false},
      {.rate = 0.7F, .momentum = 0.2F, .nesterov = false, .divisor = 3.0F, .limit = 0.5F},
      {.rate = 0.7F, .momentum = 0.8F, .nesterov = true, .divisor = 0.3F},
  };
  for (const OuterStep& how : hows) {
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
