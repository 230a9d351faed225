// f16 and bf16, exhaustively: all 65536 values are read and written back, and every place where
// rounding decides, half way between two neighbours and one step of f32 to either side, rounds
// right.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>

#include "kernels/kernels.hpp"
#include "kernels/reference.hpp"

namespace pyccl::kernels {
namespace {

constexpr std::uint32_t value_count = 1 << 16;
constexpr DataType narrow_types[] = {DataType::f16, DataType::bf16};

std::vector<std::uint16_t> all_values() {
  std::vector<std::uint16_t> values(value_count);
  for (std::uint32_t bits = 0; bits < value_count; ++bits) {
    values[bits] = static_cast<std::uint16_t>(bits);
  }
  return values;
}

std::vector<std::uint16_t> sum(const Target& target, DataType type,
                               const std::vector<std::vector<std::uint16_t>>& sources,
                               double divisor = 1) {
  std::vector<std::uint16_t> result(sources[0].size());
  std::vector<const std::byte*> operands;
  for (const auto& source : sources) {
    operands.push_back(reinterpret_cast<const std::byte*>(source.data()));
  }
  const auto fold = target.fold[static_cast<int>(type)][PYCCL_SUM];
  fold({reinterpret_cast<std::byte*>(result.data()), operands, {}, divisor, result.size()});
  return result;
}

// Brings a value of f32 into the accumulator, as the weight of a one.
std::uint16_t rounded(const Target& target, DataType type, float value) {
  const FloatFormat format = format_of(type);
  const auto one = static_cast<std::uint16_t>(format.bias() << format.mantissa_bits);
  const std::byte* source = reinterpret_cast<const std::byte*>(&one);
  const double weight = value;
  std::uint16_t result = 0;
  const auto fold = target.fold[static_cast<int>(type)][PYCCL_SUM];
  fold({reinterpret_cast<std::byte*>(&result), {&source, 1}, {&weight, 1}, 1.0, 1});
  return result;
}

}  // namespace

TEST_CASE("conversion: every value survives, and every NaN becomes the canonical one") {
  const auto values = all_values();
  for (const Target* target : targets()) {
    for (DataType type : narrow_types) {
      const FloatFormat format = format_of(type);
      const auto result = sum(*target, type, {values});
      std::uint32_t wrong = 0;
      for (std::uint32_t bits = 0; bits < value_count; ++bits) {
        const bool nan = std::isnan(decode(format, bits));
        wrong += result[bits] != (nan ? format.quiet_nan() : bits);
      }
      CHECK_MESSAGE(wrong == 0, std::string(name_of(type)), " on ", std::string(target->name));
    }
  }
}

TEST_CASE("conversion: the mean of two neighbours is a tie and goes to the even one") {
  const auto values = all_values();
  for (const Target* target : targets()) {
    for (DataType type : narrow_types) {
      const FloatFormat format = format_of(type);
      auto next = values;
      for (auto& value : next) ++value;
      const auto result = sum(*target, type, {values, next}, 2);
      std::uint32_t wrong = 0;
      std::uint32_t ties = 0;
      for (std::uint32_t bits = 0; bits < value_count; ++bits) {
        const bool finite = (bits & ~format.sign()) + 1 < format.infinity();
        // bf16 has all exponents of f32, where the sum of two of the largest numbers overflows.
        if (!finite || (type == DataType::bf16 && (bits & 0x7fff) >= 0x7f00)) continue;
        ++ties;
        wrong += result[bits] != (bits % 2 == 0 ? bits : bits + 1);
      }
      CHECK(ties > 60000);
      CHECK_MESSAGE(wrong == 0, std::string(name_of(type)), " on ", std::string(target->name));
    }
  }
}

TEST_CASE("conversion: numbers beside each tie, and beside the largest number, round to nearest") {
  for (const Target* target : targets()) {
    for (DataType type : narrow_types) {
      const FloatFormat format = format_of(type);
      std::uint32_t wrong = 0;
      for (std::uint64_t bits = 0; bits < format.infinity(); ++bits) {
        const double here = decode(format, bits);
        const double step = here - (bits == 0 ? -decode(format, 1) : decode(format, bits - 1));
        const std::uint64_t exponent = bits >> format.mantissa_bits;
        const bool step_doubles = exponent > 1 && bits == exponent << format.mantissa_bits;
        const auto tie = static_cast<float>(here + (step_doubles ? step : step / 2));
        for (const float value :
             {std::nextafterf(tie, 0.0f), tie, std::nextafterf(tie, __builtin_inff())}) {
          REQUIRE(value > 0.0f);
          wrong += rounded(*target, type, value) != encode(format, value);
          wrong += rounded(*target, type, -value) != encode(format, -static_cast<double>(value));
        }
      }
      CHECK_MESSAGE(wrong == 0, std::string(name_of(type)), " on ", std::string(target->name));
    }
  }
}

TEST_CASE("conversion: the sum of many is rounded once") {
  // 2048 + 1 is a tie in f16 that would stay 2048 each time; in f32 the ones add up.
  std::vector<std::vector<std::uint16_t>> f16{{0x6800}};
  f16.resize(5, {0x3c00});
  // 256 + 1, in bf16.
  std::vector<std::vector<std::uint16_t>> bf16{{0x4380}};
  bf16.resize(5, {0x3f80});
  for (const Target* target : targets()) {
    CHECK(sum(*target, DataType::f16, f16)[0] == 0x6802);
    CHECK(sum(*target, DataType::bf16, bf16)[0] == 0x4382);
  }
}

}  // namespace pyccl::kernels
