// Blocks against the reference, byte by byte: every target, format, rounding and type, wherever the
// operands lie, and nothing else touched.
#include <doctest/doctest.h>

#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/quantize_reference.hpp"
#include "kernels/reference.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace pyccl::kernels {
namespace {

using Bytes = std::vector<std::byte>;

constexpr DataType floating_types[] = {DataType::f32, DataType::f64, DataType::f16, DataType::bf16};
constexpr Rounding roundings[] = {Rounding::nearest, Rounding::stochastic};
constexpr std::uint32_t block_sizes[] = {32, 96, 256, 1024};
constexpr std::size_t count_max = 2 * 1024 + 77;

// A place of its own for an operand, with bytes around it that must stay as they are.
class Place {
 public:
  Place(std::size_t size, std::size_t misalignment)
      : memory_(size + misalignment + 2 * guard + 64, mark), size_(size) {
    const auto start = reinterpret_cast<std::uintptr_t>(memory_.data());
    begin_ = memory_.data() + (64 - start % 64) + guard / 2 + misalignment;
  }
  Place(const Bytes& content, std::size_t misalignment) : Place(content.size(), misalignment) {
    std::copy(content.begin(), content.end(), begin_);
  }

  std::byte* begin() { return begin_; }
  float* numbers() { return reinterpret_cast<float*>(begin_); }
  // Not from a range of pointers: GCC 12 warns of a free that it misreads.
  Bytes content() const {
    Bytes bytes(size_);
    std::copy_n(begin_, size_, bytes.data());
    return bytes;
  }
  bool intact() const {
    const auto untouched = [](std::byte byte) { return byte == mark; };
    const auto size = static_cast<std::ptrdiff_t>(size_);
    const auto first = memory_.begin() + (begin_ - memory_.data());
    return std::all_of(memory_.begin(), first, untouched) &&
           std::all_of(first + size, memory_.end(), untouched);
  }

 private:
  static constexpr std::size_t guard = 128;
  static constexpr std::byte mark{0xa5};

  Bytes memory_;
  std::byte* begin_;
  std::size_t size_;
};

// As elements of a type, each rounded to it.
Bytes stored(DataType type, const std::vector<float>& numbers) {
  const std::size_t size = size_of(type);
  Bytes bytes(numbers.size() * size);
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const std::uint64_t bits = encode(format_of(type), numbers[i]);
    std::memcpy(bytes.data() + i * size, &bits, size);
  }
  return bytes;
}

std::vector<float> widened(DataType type, const Bytes& bytes) {
  std::vector<float> numbers(bytes.size() / size_of(type));
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const double value = decode(format_of(type), element_at(type, bytes.data(), i));
    const auto bits = static_cast<std::uint32_t>(encode(format_of(DataType::f32), value));
    std::memcpy(&numbers[i], &bits, sizeof(bits));
  }
  return numbers;
}

struct Expected {
  Bytes wire;
  std::vector<float> decoded;
  float step = 0;
};

Expected expect(const BlockFormat& format, const RoundingChoice& rounding,
                const std::vector<float>& numbers) {
  Expected expected;
  for (std::size_t at = 0; at < numbers.size(); at += format.block) {
    const std::size_t count = std::min<std::size_t>(format.block, numbers.size() - at);
    const auto block = reference_block(format, rounding, rounding.first_block + at / format.block,
                                       {numbers.data() + at, count});
    expected.wire.insert(expected.wire.end(), block.wire.begin(), block.wire.end());
    expected.decoded.insert(expected.decoded.end(), block.decoded.begin(), block.decoded.end());
    expected.step = std::max(expected.step, block.step);
  }
  return expected;
}

struct Case {
  BlockFormat format;
  Rounding rounding;
  DataType type;
  DataType rounded_type;
  std::size_t count;
  std::size_t misalignment;
};

// What differs from what is expected, or nothing.
std::string fault_of(const Case& c, const Bytes& source, const Target& target) {
  const RoundingChoice rounding{c.rounding, 77, 5};
  const Expected expected = expect(c.format, rounding, widened(c.type, source));
  const Bytes decoded = stored(c.rounded_type, expected.decoded);
  Place from(source, c.misalignment);
  Place wire(expected.wire.size(), c.misalignment + 3);
  Place plain_wire(expected.wire.size(), c.misalignment + 1);
  Place values(decoded.size(), c.misalignment);
  Place in_place(source, c.misalignment);
  Place again(decoded.size(), c.misalignment + 5);
  EncodeArguments arguments{from.begin(), c.type,   c.count, plain_wire.begin(),
                            c.format,     rounding, nullptr, c.rounded_type};
  const float step = encode(arguments, target);
  arguments.destination = wire.begin();
  arguments.rounded = values.begin();
  const float same_step = encode(arguments, target);
  arguments.source = arguments.rounded = in_place.begin();
  arguments.rounded_dtype = c.type;
  encode(arguments, target);
  const float decoded_step =
      decode({wire.begin(), c.format, c.count, again.begin(), c.rounded_type}, target);
  if (plain_wire.content() != expected.wire) return "codes";
  if (wire.content() != expected.wire) return "codes beside rounded values";
  if (values.content() != decoded) return "rounded values";
  if (in_place.content() != stored(c.type, expected.decoded)) return "rounded values in place";
  if (again.content() != decoded) return "decoded values";
  if (step != expected.step || same_step != step || decoded_step != step) return "step";
  for (const Place* place : {&from, &wire, &plain_wire, &values, &in_place, &again}) {
    if (!place->intact()) return "bytes beyond the ends";
  }
  if (from.content() != source) return "the source";
  return "";
}

std::string text_of(const Case& c) {
  return text_of(c.format) + ", " + std::string(name_of(c.rounding)) + ", " +
         std::string(name_of(c.type)) + " to " + std::string(name_of(c.rounded_type));
}

}  // namespace

TEST_CASE("codecs: every target gives the reference's bytes, steps and values") {
  Prng prng(5);
  for (const BlockFormat& each : all_formats(0)) {
    for (const Rounding rounding : roundings) {
      for (const DataType type : floating_types) {
        for (int kind = 0; kind < number_kinds; ++kind) {
          Case c{each, rounding, type, floating_types[prng.below(4)], 0, prng.below(16)};
          c.format.block = block_sizes[prng.below(4)];
          c.count = prng.between(1, std::min<std::size_t>(3 * c.format.block, count_max));
          if (type == DataType::f32) c.misalignment *= prng.below(2);
          const Bytes source = stored(type, numbers_of_kind(kind, c.count, prng));
          for (const Target* target : targets()) {
            const std::string fault = fault_of(c, source, *target);
            CHECK_MESSAGE(fault.empty(), text_of(c), ", kind ", kind, ", ", c.count, " on ",
                          std::string(target->name), ": ", fault);
          }
        }
      }
    }
  }
}

// Where a quotient that is off in its last place would show.
TEST_CASE("codecs: numbers beside every threshold, of many scales, get the reference's codes") {
  Prng prng(6);
  for (const BlockFormat& format : all_formats(1024)) {
    const CodecDefinition codec = definition_of(format.codec);
    for (int round = 0; round < 40; ++round) {
      const int exponent = static_cast<int>(prng.below(240)) - 140;
      const double unit = std::ldexp(1 + static_cast<double>(prng.below(1u << 23)) * 0x1p-23,
                                     round % 4 == 3 ? exponent : 0);
      std::vector<float> numbers{static_cast<float>(unit * largest_of(codec))};
      if (codec.minmax) numbers.push_back(0);
      const float scale = reference_block(format, {}, 0, numbers).scale;
      while (numbers.size() < format.block) {
        const int code = static_cast<int>(prng.below(static_cast<std::uint64_t>(codec.code_max)));
        const double middle = (magnitude_of(codec, code) + magnitude_of(codec, code + 1)) / 2;
        auto number = static_cast<float>(middle * scale);
        for (auto steps = prng.below(4); steps > 0; --steps) {
          number = std::nextafter(number, prng.chance(1, 2) ? 0.0f : 1e38f);
        }
        number = std::min(number, numbers[0]);
        numbers.push_back(!codec.minmax && prng.chance(1, 2) ? -number : number);
      }
      const Expected expected = expect(format, {}, numbers);
      for (const Target* target : targets()) {
        Bytes wire(expected.wire.size());
        encode({reinterpret_cast<const std::byte*>(numbers.data()),
                DataType::f32,
                numbers.size(),
                wire.data(),
                format,
                {},
                nullptr,
                DataType::f32},
               *target);
        CHECK_MESSAGE(wire == expected.wire, text_of(format), " on ", std::string(target->name));
      }
    }
  }
}

TEST_CASE("codecs: accumulating is decoding, multiplying and adding, each rounded") {
  Prng prng(7);
  for (const BlockFormat& format : all_formats(64)) {
    for (int kind = 0; kind < number_kinds; ++kind) {
      const std::size_t count = prng.between(1, 300);
      const auto numbers = numbers_of_kind(kind, count, prng);
      const auto addends = numbers_of_kind(static_cast<int>(prng.below(number_kinds)), count, prng);
      const Expected expected = expect(format, {}, numbers);
      for (const float weight : {1.0f, 0.37f, -1e30f}) {
        for (const bool first : {false, true}) {
          std::vector<float> sums(count);
          for (std::size_t i = 0; i < count; ++i) {
            const float term = expected.decoded[i] * weight;
            sums[i] = first ? term : addends[i] + term;
          }
          for (const Target* target : targets()) {
            Place sum(stored(DataType::f32, addends), 4 * prng.below(16));
            const float step = accumulate(
                {expected.wire.data(), format, count, sum.numbers(), weight, first}, *target);
            CHECK(step == expected.step);
            CHECK(sum.intact());
            CHECK_MESSAGE(sum.content() == stored(DataType::f32, sums), text_of(format), ", kind ",
                          kind, " on ", std::string(target->name));
          }
        }
      }
    }
  }
}

TEST_CASE("codecs: a received scale that is no number makes NaN of its block") {
  const float infinity = __builtin_inff();
  const float payload = -__builtin_nanf("77");
  for (const BlockFormat& format : all_formats(32)) {
    for (const float scale : {infinity, -infinity, payload}) {
      for (const bool in_least : {false, true}) {
        if (in_least && !definition_of(format.codec).minmax) continue;
        Bytes wire(block_bytes(format), std::byte{0xff});
        std::byte bytes[4];
        std::memcpy(bytes, &scale, sizeof(scale));
        const std::size_t size = size_of(format.scale);
        std::fill_n(wire.begin(), 2 * size, std::byte{0});
        std::copy_n(bytes + 4 - size, size, wire.begin() + (in_least ? size : 0));
        const std::vector<float> nan(32, __builtin_nanf(""));
        for (const Target* target : targets()) {
          std::vector<float> numbers(32, 1.0f);
          CHECK(accumulate({wire.data(), format, 32, numbers.data(), 2, false}, *target) == 0);
          CHECK(std::memcmp(numbers.data(), nan.data(), 32 * sizeof(float)) == 0);
          auto* destination = reinterpret_cast<std::byte*>(numbers.data());
          CHECK(decode({wire.data(), format, 32, destination, DataType::f32}, *target) == 0);
          CHECK(std::memcmp(numbers.data(), nan.data(), 32 * sizeof(float)) == 0);
        }
      }
    }
  }
}

TEST_CASE("codecs: the caller's floating-point mode decides nothing and comes back") {
  Prng prng(8);
  for (const BlockFormat& format : all_formats(32)) {
    const Case c{format, Rounding::nearest, DataType::f32, DataType::f32, 320, 0};
    for (const int kind : {1, 4, 12}) {
      const Bytes source = stored(c.type, numbers_of_kind(kind, c.count, prng));
      const Expected expected = expect(format, {}, widened(c.type, source));
      Bytes wire(expected.wire.size());
      std::vector<float> numbers(c.count);
      std::vector<float> sum(c.count);
      auto* rounded = reinterpret_cast<std::byte*>(numbers.data());
      std::fesetround(FE_UPWARD);
#if defined(__SSE__)
      constexpr unsigned flush_subnormals = 0x8040;
      _mm_setcsr(_mm_getcsr() | flush_subnormals);
#endif
      encode({source.data(), c.type, c.count, wire.data(), format, {}, rounded, c.rounded_type});
      accumulate({wire.data(), format, c.count, sum.data(), 1, true});
      const int rounding = std::fegetround();
#if defined(__SSE__)
      const bool flushes = (_mm_getcsr() & flush_subnormals) == flush_subnormals;
      _mm_setcsr(_mm_getcsr() & ~flush_subnormals);
      CHECK(flushes);
#endif
      std::fesetround(FE_TONEAREST);
      CHECK(rounding == FE_UPWARD);
      CHECK_MESSAGE(wire == expected.wire, text_of(format));
      CHECK(stored(DataType::f32, numbers) == stored(DataType::f32, expected.decoded));
      CHECK(stored(DataType::f32, sum) == stored(DataType::f32, expected.decoded));
    }
  }
}

TEST_CASE("conversions of arrays: every type, count and place") {
  Prng prng(9);
  for (const DataType type : floating_types) {
    for (const std::size_t count : {0, 1, 3, 16, 17, 100}) {
      const auto misalignment = prng.below(8);
      const Bytes elements = random_elements(type, count, prng);
      const Bytes wide = stored(DataType::f32, widened(type, elements));
      const Bytes numbers = random_elements(DataType::f32, count, prng);
      const Bytes narrow_ones = stored(type, widened(DataType::f32, numbers));
      for (const Target* target : targets()) {
        Place from(elements, misalignment);
        Place to(count * sizeof(float), 4);
        widen(from.begin(), type, count, to.numbers(), *target);
        CHECK(to.content() == wide);
        CHECK(to.intact());
        Place narrow_from(numbers, 4);
        Place narrow_to(narrow_ones.size(), misalignment);
        narrow(narrow_from.numbers(), count, narrow_to.begin(), type, *target);
        CHECK(narrow_to.content() == narrow_ones);
        CHECK(narrow_to.intact());
      }
    }
  }
}

}  // namespace pyccl::kernels
