// What quantize.hpp promises about single numbers: how far each may be off, where ties go, and that
// chance is a function of its arguments and right on average.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "kernels/quantize_reference.hpp"

namespace pyccl::kernels {
namespace {

using Bytes = std::vector<std::byte>;

struct Encoded {
  Bytes wire;
  std::vector<float> values;
  float step = 0;
};

Encoded encoded(const BlockFormat& format, const RoundingChoice& rounding,
                const std::vector<float>& numbers, const Target& target = best_target()) {
  const std::size_t blocks = (numbers.size() + format.block - 1) / format.block;
  Encoded result{Bytes(blocks * block_bytes(format)), std::vector<float>(numbers.size())};
  result.step = encode({reinterpret_cast<const std::byte*>(numbers.data()), DataType::f32,
                        numbers.size(), result.wire.data(), format, rounding,
                        reinterpret_cast<std::byte*>(result.values.data()), DataType::f32},
                       target);
  return result;
}

// The table at the head of quantize.hpp, and what it says of chance.
double error_bound(Codec codec, bool stochastic, double magnitude, double scale) {
  const double factor = stochastic ? 2 : 1;
  switch (codec) {
    case Codec::fp8_e4m3: return factor * std::max(magnitude * 0x1p-4, scale * 0x1p-10);
    case Codec::fp8_e5m2: return factor * std::max(magnitude * 0x1p-3, scale * 0x1p-17);
    case Codec::fp4_e3m0: return std::max(magnitude / (stochastic ? 1 : 3), factor * scale / 8);
    case Codec::fp4_e2m1: return std::max(magnitude / (stochastic ? 2 : 5), factor * scale / 4);
    default: return factor * scale / 2;
  }
}

// The code of the number at `place`, without what is said about zero's sign.
int code_at(const BlockFormat& format, const Encoded& block, std::size_t place) {
  const CodecDefinition codec = definition_of(format.codec);
  const std::size_t header = size_of(format.scale) * (codec.minmax ? 2 : 1);
  const auto byte = static_cast<int>(block.wire[header + place * codec.bits / 8]);
  if (codec.bits == 8) return byte;
  return place % 2 == 0 ? byte & 15 : byte >> 4;
}

// A block whose scale is exactly `scale`, a power of two, and which has `number` at place 1.
Encoded block_with(const BlockFormat& format, float scale, float number) {
  const CodecDefinition codec = definition_of(format.codec);
  std::vector<float> numbers(format.block, 0.0f);
  numbers[0] = static_cast<float>(largest_of(codec) * scale);
  numbers[1] = number;
  return encoded(format, {}, numbers);
}

}  // namespace

TEST_CASE("codecs: no number is off by more than the header says") {
  Prng prng(21);
  for (const BlockFormat& format : all_formats(96)) {
    const CodecDefinition codec = definition_of(format.codec);
    for (int kind = 0; kind < 13; ++kind) {
      for (const Rounding rounding : {Rounding::nearest, Rounding::stochastic}) {
        const auto numbers = numbers_of_kind(kind, 96, prng);
        const RoundingChoice choice{rounding, 3, 4};
        const Encoded block = encoded(format, choice, numbers);
        const ReferenceBlock reference = reference_block(format, choice, 4, numbers);
        double largest = std::fabs(reference.least);
        for (float number : numbers) largest = std::max(largest, std::fabs(double{number}));
        double worst = 0;
        for (std::size_t i = 0; i < numbers.size(); ++i) {
          REQUIRE(std::isfinite(block.values[i]));
          const double error = std::fabs(double{numbers[i]} - block.values[i]);
          const double bound = error_bound(format.codec, rounding == Rounding::stochastic,
                                           std::fabs(numbers[i]), reference.scale);
          // f32 rounds a quotient and a product, or sums that are as large as the largest number.
          const double slack =
              (codec.minmax ? largest : std::fabs(numbers[i])) * 0x1p-22 + 0x1p-149;
          worst = std::max(worst, error - bound - slack);
        }
        CHECK_MESSAGE(worst <= 0, text_of(format), ", kind ", kind, " by ", worst);
      }
    }
  }
}

TEST_CASE("codecs: blocks of one number come back exactly, if their scales can say them") {
  for (const BlockFormat& format : all_formats(32)) {
    for (const float number : {0.0f, 1.0f, -0.25f, 0x1p-100f, -0x1p100f}) {
      const bool exact = number == 0 || definition_of(format.codec).minmax;
      const Encoded block = encoded(format, {}, std::vector<float>(40, number));
      for (float value : block.values) CHECK((!exact || value == number));
      CHECK(block.step >= 0);
      if (exact) CHECK(block.step == 0);
    }
    const Encoded zeros = encoded(format, {}, std::vector<float>(40, -0.0f));
    CHECK(std::all_of(zeros.wire.begin(), zeros.wire.end(),
                      [](std::byte byte) { return byte == std::byte{0}; }));
    for (float value : zeros.values) CHECK(!std::signbit(value));
  }
}

TEST_CASE("codecs: a tie goes to the even code, and what is beside it to the nearer one") {
  for (const BlockFormat& format : all_formats(32)) {
    const CodecDefinition codec = definition_of(format.codec);
    for (const float scale : {1.0f, 0x1p-20f, 0x1p-70f}) {
      for (int code = 0; code < codec.code_max; ++code) {
        const double middle = (magnitude_of(codec, code) + magnitude_of(codec, code + 1)) / 2;
        const auto tie = static_cast<float>(middle * scale);
        CHECK(code_at(format, block_with(format, scale, tie), 1) == code + code % 2);
        // Below the least normal number digits of the number itself don't count all.
        const auto near = static_cast<float>(tie * 0x1p-18);
        CHECK(code_at(format, block_with(format, scale, tie - near), 1) == code);
        CHECK(code_at(format, block_with(format, scale, tie + near), 1) == code + 1);
      }
    }
  }
}

TEST_CASE("fp4_e3m0: the thresholds are 1/8, 3/8, 3/4, 3/2, 3, 6 and 12") {
  const BlockFormat format{Codec::fp4_e3m0, 32, DataType::f32};
  const float thresholds[] = {0.125f, 0.375f, 0.75f, 1.5f, 3.0f, 6.0f, 12.0f};
  const float values[] = {0.0f, 0.25f, 0.5f, 1.0f, 2.0f, 4.0f, 8.0f, 16.0f};
  for (std::size_t i = 0; i < std::size(thresholds); ++i) {
    const float tie = thresholds[i];
    CHECK(block_with(format, 1, tie).values[1] == values[i % 2 == 0 ? i : i + 1]);
    CHECK(block_with(format, 1, -tie).values[1] == -values[i % 2 == 0 ? i : i + 1]);
    CHECK(block_with(format, 1, std::nextafter(tie, 0.0f)).values[1] == values[i]);
    const float above = std::nextafter(std::nextafter(tie, 99.0f), 99.0f);
    CHECK(block_with(format, 1, above).values[1] == values[i + 1]);
    CHECK(code_at(format, block_with(format, 1, -above), 1) == static_cast<int>(i + 1) + 8);
  }
}

TEST_CASE("stochastic: the same call gives the same bytes, and so do its two halves") {
  Prng prng(22);
  const auto numbers = numbers_of_kind(0, 640, prng);
  for (const BlockFormat& format : all_formats(64)) {
    const RoundingChoice choice{Rounding::stochastic, 1234, 9};
    const Encoded whole = encoded(format, choice, numbers);
    for (const Target* target : targets()) {
      CHECK(encoded(format, choice, numbers, *target).wire == whole.wire);
    }
    Bytes halves;
    for (const std::size_t half : {std::size_t{0}, std::size_t{1}}) {
      RoundingChoice part = choice;
      part.first_block += half * 5;
      const auto begin = numbers.begin() + static_cast<std::ptrdiff_t>(half * 320);
      const Bytes wire = encoded(format, part, {begin, begin + 320}).wire;
      halves.insert(halves.end(), wire.begin(), wire.end());
    }
    CHECK(halves == whole.wire);
    RoundingChoice other = choice;
    other.seed += 1;
    CHECK(encoded(format, other, numbers).wire != whole.wire);
    other = choice;
    other.first_block += 1;
    CHECK(encoded(format, other, numbers).wire != whole.wire);
  }
}

TEST_CASE("stochastic: a number that is a code stays") {
  for (const BlockFormat& format : all_formats(1024)) {
    const CodecDefinition codec = definition_of(format.codec);
    std::vector<float> numbers;
    for (std::size_t i = 0; i < 64 * 1024; ++i) {
      const int code = i % 1024 == 0 ? codec.code_max : static_cast<int>(i) % (codec.code_max + 1);
      const bool negative = !codec.minmax && i % 1024 != 0 && i % 3 == 0;
      numbers.push_back(static_cast<float>(magnitude_of(codec, code) * (negative ? -1 : 1)));
    }
    const Encoded blocks = encoded(format, {Rounding::stochastic, 5, 0}, numbers);
    CHECK_MESSAGE(blocks.values == numbers, text_of(format));
  }
}

TEST_CASE("stochastic: right on average") {
  constexpr std::size_t count = 64 * 1024;
  for (const BlockFormat& format : all_formats(1024)) {
    const CodecDefinition codec = definition_of(format.codec);
    for (const double where : {0.02, 0.3, 0.5, 0.97}) {
      for (const int code : {0, codec.code_max / 2, codec.code_max - 1}) {
        const double low = magnitude_of(codec, code);
        const double gap = magnitude_of(codec, code + 1) - low;
        const auto number = static_cast<float>(low + where * gap);
        std::vector<float> numbers(count, number);
        for (std::size_t i = 0; i < count; i += 1024) {
          numbers[i] = static_cast<float>(largest_of(codec));
          numbers[i + 1] = codec.minmax ? 0.0f : -numbers[i];
        }
        const Encoded blocks = encoded(format, {Rounding::stochastic, 6, 0}, numbers);
        double mean = 0;
        for (std::size_t i = 0; i < count; ++i)
          mean += (double{blocks.values[i]} - numbers[i]) / gap;
        mean /= count;
        // Five standard deviations of a mean of so many ones and zeros.
        const double deviation = std::sqrt(where * (1 - where) / count);
        CHECK_MESSAGE(std::fabs(mean) < 5 * deviation, text_of(format), ", code ", code);
      }
    }
  }
}

TEST_CASE("formats: those that are refused say why") {
  CHECK(check({}).ok());
  CHECK(check({Codec::fp4_e3m0, 1024, DataType::bf16}).ok());
  CHECK(check({static_cast<Codec>(9), 256, DataType::f32}).reason() ==
        "there is no codec number 9");
  CHECK(check({Codec::none, 256, DataType::f32}).reason() == "\"none\" has no blocks");
  for (const std::uint32_t block : {0u, 31u, 48u, 1056u}) {
    CHECK(check({Codec::int8, block, DataType::f32}).reason() ==
          "a block has 32 to 1024 elements, a multiple of 32, not " + std::to_string(block));
  }
  CHECK(check({Codec::int8, 256, DataType::f16}).reason() == "scales are f32 or bf16");
  CHECK(check({Codec::int8, 256, DataType::f16}).code() == Code::invalid_argument);
}

TEST_CASE("formats: names and bytes") {
  CHECK(name_of(Codec::none) == "none");
  CHECK(name_of(Codec::int8_minmax) == "int8_minmax");
  CHECK(name_of(Codec::fp4_e2m1) == "fp4_e2m1");
  CHECK(name_of(Rounding::nearest) == "nearest");
  CHECK(name_of(Rounding::stochastic) == "stochastic");
  CHECK(block_bytes({Codec::int8, 256, DataType::f32}) == 260);
  CHECK(block_bytes({Codec::int8_minmax, 64, DataType::bf16}) == 68);
  CHECK(block_bytes({Codec::int4, 32, DataType::bf16}) == 18);
  CHECK(block_bytes({Codec::int4_minmax, 1024, DataType::f32}) == 520);
}

}  // namespace pyccl::kernels
