// A descriptor as its call looks. Mismatch errors show two of them side by side, so everything that
// can differ is shown when it is not the default.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <iterator>

#include "protocol/messages.hpp"

namespace pyccl::protocol {
namespace {

template <std::size_t n>
std::string name_of(const char* const (&names)[n], std::size_t index, const char* what) {
  return index < n ? names[index] : what + (" " + std::to_string(index));
}

constexpr const char* collective_names[] = {
    "all_reduce", "barrier", "all_gather", "all_to_all", "reduce_scatter", "broadcast",
    "reduce",     "gather",  "scatter",    "send",       "exchange"};
constexpr const char* dtype_names[] = {"f32", "f64", "f16", "bf16", "i8",  "i16",
                                       "i32", "i64", "u8",  "u16",  "u32", "u64"};
constexpr const char* reduce_op_names[] = {"sum", "avg",  "prod", "min",
                                           "max", "band", "bor",  "bxor"};
constexpr const char* algorithm_names[] = {
    "auto",     "ring", "direct", "one_shot", "recursive_doubling", "halving_doubling",
    "binomial", "chain"};
constexpr const char* codec_names[] = {"none",     "int8",        "int8_minmax",
                                       "int4",     "int4_minmax", "fp8_e4m3",
                                       "fp8_e5m2", "fp4_e3m0",    "fp4_e2m1"};
constexpr std::size_t shares_shown = 4;

static_assert(std::size(codec_names) == PYCCL_CODEC_COUNT);
static_assert(std::size(dtype_names) == PYCCL_DTYPE_COUNT);
static_assert(std::size(reduce_op_names) == PYCCL_REDOP_COUNT);

bool reduces(Collective kind) {
  return kind == Collective::all_reduce || kind == Collective::reduce_scatter ||
         kind == Collective::reduce;
}

// "[3, 1, 4, 1 ... 24 in all, 92 elements]".
std::string shown(const std::vector<std::uint64_t>& shares) {
  std::string text;
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    sum += shares[i];
    if (i < shares_shown) text += (i == 0 ? "" : ", ") + std::to_string(shares[i]);
  }
  if (shares.size() > shares_shown) {
    text +=
        " ... " + std::to_string(shares.size()) + " in all, " + std::to_string(sum) + " elements";
  }
  return "[" + text + "]";
}

// "quantization=int8 in blocks of 256, scales in f32".
std::string quantization_of(const Descriptor& descriptor) {
  std::string text = "quantization=" + name_of(codec_names, descriptor.codec, "codec") +
                     " in blocks of " + std::to_string(descriptor.block) + ", scales in " +
                     name_of(dtype_names, descriptor.scale_dtype, "dtype");
  if (descriptor.partial_dtype != PYCCL_F32) {
    text += ", partial sums in " + name_of(dtype_names, descriptor.partial_dtype, "dtype");
  }
  return text;
}

constexpr bool is_floating(std::uint8_t dtype) {
  return dtype == PYCCL_F32 || dtype == PYCCL_F64 || dtype == PYCCL_F16 || dtype == PYCCL_BF16;
}

}  // namespace

bool allows_weight(const Descriptor& descriptor, double weight) {
  if (!std::isfinite(weight) || weight < 0.0) return false;
  if (weight == 0.0 || weight == 1.0 || descriptor.parts.empty()) return true;
  return (descriptor.reduce_op == PYCCL_SUM || descriptor.reduce_op == PYCCL_AVG) &&
         std::ranges::all_of(descriptor.parts,
                             [](const Part& part) { return is_floating(part.dtype); });
}

std::string to_string(const Descriptor& descriptor) {
  std::string inside;
  const auto add = [&](const std::string& text) { inside += (inside.empty() ? "" : ", ") + text; };
  if (reduces(descriptor.kind)) add(name_of(reduce_op_names, descriptor.reduce_op, "op"));
  for (const Part& part : descriptor.parts) {
    const std::string count = descriptor.uneven ? "by rank" : std::to_string(part.count);
    add(name_of(dtype_names, part.dtype, "dtype") + "[" + count + "]");
  }
  if (descriptor.layout != 0) {
    std::array<char, 8> digits{};
    const auto end = std::to_chars(digits.begin(), digits.end(), descriptor.layout, 16).ptr;
    add("a list of layout " + std::string(digits.begin(), end));
  }
  if (!descriptor.shares.empty()) add("shares=" + shown(descriptor.shares));
  if (descriptor.root >= 0) {
    const std::string peer =
        descriptor.root_peer ? " (peer " + to_string(descriptor.root_peer) + ")" : "";
    add("root=" + std::to_string(descriptor.root) + peer);
  }
  if (descriptor.algorithm != PYCCL_ALGORITHM_AUTO) {
    add("algorithm=" + name_of(algorithm_names, descriptor.algorithm, "algorithm"));
  }
  if (descriptor.codec != PYCCL_CODEC_NONE) add(quantization_of(descriptor));
  if (descriptor.on_loss == OnLoss::raise) add("on_loss=raise");
  if (descriptor.segment_bytes != 0)
    add("segments of " + std::to_string(descriptor.segment_bytes) + " bytes");
  return name_of(collective_names, static_cast<std::size_t>(descriptor.kind), "collective") + "(" +
         inside + ")";
}

}  // namespace pyccl::protocol
