// The folds by definition.
#include "kernels/reference.hpp"

#include <cmath>
#include <cstring>
#include <limits>

#include "base/assert.hpp"

namespace pyccl::kernels {
namespace {

using Wide = __int128;

Wide integer_value(DataType type, std::uint64_t bits) {
  const int unused = 64 - 8 * static_cast<int>(size_of(type));
  const bool is_signed = type >= DataType::i8 && type <= DataType::i64;
  const std::uint64_t top = bits << unused;
  if (is_signed) return static_cast<std::int64_t>(top) >> unused;
  return top >> unused;
}

Wide combine(ReduceOp op, Wide a, Wide b) {
  switch (op) {
    case ReduceOp::sum: return a + b;
    case ReduceOp::prod:
      return static_cast<Wide>(static_cast<unsigned __int128>(a) *
                               static_cast<unsigned __int128>(b));
    case ReduceOp::min: return b < a ? b : a;
    case ReduceOp::max: return b > a ? b : a;
    case ReduceOp::band: return a & b;
    case ReduceOp::bor: return a | b;
    case ReduceOp::bxor: return a ^ b;
    case ReduceOp::avg: break;
  }
  PYCCL_ASSERT(!"an average of integers");
  return 0;
}

std::uint64_t reference_integer(DataType type, ReduceOp op,
                                std::span<const std::uint64_t> sources) {
  Wide result = integer_value(type, sources[0]);
  for (std::uint64_t bits : sources.subspan(1)) {
    // Cut to the type's width after each step, as the values of min and max need no cutting.
    const Wide next = combine(op, result, integer_value(type, bits));
    result = integer_value(type, static_cast<std::uint64_t>(next));
  }
  const int unused = 64 - 8 * static_cast<int>(size_of(type));
  return static_cast<std::uint64_t>(result) << unused >> unused;
}

bool is_below(double a, double b) {
  return a < b || (a == b && std::signbit(a) && !std::signbit(b));
}

double combine(ReduceOp op, double a, double b) {
  if (std::isnan(a) || std::isnan(b)) return std::numeric_limits<double>::quiet_NaN();
  switch (op) {
    case ReduceOp::sum:
    case ReduceOp::avg: return a + b;
    case ReduceOp::prod: return a * b;
    case ReduceOp::min: return is_below(b, a) ? b : a;
    case ReduceOp::max: return is_below(a, b) ? b : a;
    default: break;
  }
  PYCCL_ASSERT(!"a bit operation of floating point");
  return 0;
}

// A double holds f32's sums, products and quotients so finely that rounding it again rounds them
// right.
double rounded(DataType type, double value) {
  return type == DataType::f64 ? value : static_cast<double>(static_cast<float>(value));
}

std::uint64_t reference_floating(DataType type, ReduceOp op, std::span<const std::uint64_t> sources,
                                 std::span<const double> weights, double divisor) {
  const FloatFormat format = format_of(type);
  double result = 0;
  bool empty = true;
  for (std::size_t i = 0; i < sources.size(); ++i) {
    const double weight = weights.empty() ? 1 : rounded(type, weights[i]);
    if (weight == 0) continue;
    const double value = rounded(type, decode(format, sources[i]) * weight);
    result = empty ? value : rounded(type, combine(op, result, value));
    empty = false;
  }
  if (divisor != 1) result = rounded(type, result / rounded(type, divisor));
  return encode(format, result);
}

}  // namespace

FloatFormat format_of(DataType type) {
  switch (type) {
    case DataType::f32: return {8, 23};
    case DataType::f64: return {11, 52};
    case DataType::f16: return {5, 10};
    case DataType::bf16: return {8, 7};
    default: break;
  }
  PYCCL_ASSERT(!"a floating-point type");
  return {};
}

double decode(FloatFormat format, std::uint64_t bits) {
  if (format.is_nan(bits)) return std::numeric_limits<double>::quiet_NaN();
  const double sign = bits & format.sign() ? -1 : 1;
  const std::uint64_t magnitude = bits & ~format.sign();
  if (magnitude == format.infinity()) return sign * std::numeric_limits<double>::infinity();
  const auto exponent = static_cast<int>(magnitude >> format.mantissa_bits);
  std::uint64_t mantissa = magnitude & ((1ull << format.mantissa_bits) - 1);
  if (exponent > 0) mantissa |= 1ull << format.mantissa_bits;
  const int scale = (exponent > 0 ? exponent : 1) - format.bias() - format.mantissa_bits;
  return sign * std::ldexp(static_cast<double>(mantissa), scale);
}

std::uint64_t encode(FloatFormat format, double value) {
  if (std::isnan(value)) return format.quiet_nan();
  const std::uint64_t sign = std::signbit(value) ? format.sign() : 0;
  const double magnitude = std::fabs(value);
  if (magnitude == 0) return sign;
  if (std::isinf(magnitude)) return sign | format.infinity();
  const int exponent_min = 1 - format.bias();
  const int exponent = std::max(std::ilogb(magnitude), exponent_min);
  const double steps = std::nearbyint(std::ldexp(magnitude, format.mantissa_bits - exponent));
  // Steps beyond a power of two carry into the exponent, and from the largest number to infinity.
  const auto base = static_cast<std::uint64_t>(exponent - exponent_min) << format.mantissa_bits;
  return sign | std::min(base + static_cast<std::uint64_t>(steps), format.infinity());
}

std::uint64_t reference(DataType type, ReduceOp op, std::span<const std::uint64_t> sources,
                        std::span<const double> weights, double divisor) {
  if (!is_floating(type)) return reference_integer(type, op, sources);
  return reference_floating(type, op, sources, weights, divisor);
}

std::vector<Pair> all_pairs() {
  std::vector<Pair> pairs;
  for (int type = 0; type < PYCCL_DTYPE_COUNT; ++type) {
    for (int op = 0; op < PYCCL_REDOP_COUNT; ++op) {
      const Pair pair{static_cast<DataType>(type), static_cast<ReduceOp>(op)};
      if (check_pair(pair.type, pair.op).ok()) pairs.push_back(pair);
    }
  }
  return pairs;
}

std::vector<std::byte> random_elements(DataType type, std::size_t count, Prng& prng) {
  const std::size_t size = size_of(type);
  std::vector<std::byte> elements(count * size);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t bits = prng.next();
    if (is_floating(type)) {
      const FloatFormat format = format_of(type);
      const std::uint64_t mantissa = bits & ((1ull << format.mantissa_bits) - 1);
      const auto tame = static_cast<std::uint64_t>(format.bias()) - 3 + prng.below(6);
      const std::uint64_t wild[] = {bits,
                                    format.quiet_nan() | mantissa,
                                    format.infinity() | mantissa,
                                    format.infinity(),
                                    0,
                                    mantissa,
                                    format.infinity() - 1,
                                    bits};
      const std::uint64_t magnitude =
          i % 4 != 3 ? tame << format.mantissa_bits | mantissa : wild[prng.below(8)];
      bits = (magnitude & ~format.sign()) | (prng.chance(1, 2) ? format.sign() : 0);
    }
    std::memcpy(elements.data() + i * size, &bits, size);
  }
  return elements;
}

std::uint64_t element_at(DataType type, const std::byte* elements, std::size_t index) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, elements + index * size_of(type), size_of(type));
  return bits;
}

}  // namespace pyccl::kernels
