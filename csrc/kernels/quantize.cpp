// The frame around every codec: checks the arguments, fixes the floating-point mode, and runs the
// body of a target.
#include "kernels/quantize.hpp"

#include <string>

#include "base/assert.hpp"
#include "kernels/floating_mode.hpp"
#include "kernels/quantize_call.hpp"

namespace pyccl::kernels {
namespace {

struct CodecTraits {
  std::string_view name;
  std::size_t bits;
  bool minmax;
};

// In the order of pyccl_codec.
constexpr CodecTraits codecs[PYCCL_CODEC_COUNT] = {
    {"none", 0, false},     {"int8", 8, false},       {"int8_minmax", 8, true},
    {"int4", 4, false},     {"int4_minmax", 4, true}, {"fp8_e4m3", 8, false},
    {"fp8_e5m2", 8, false}, {"fp4_e3m0", 4, false},   {"fp4_e2m1", 4, false},
};

// In the order of pyccl_rounding.
constexpr std::string_view roundings[PYCCL_ROUNDING_COUNT] = {"nearest", "stochastic"};

std::size_t index_of(Codec codec) {
  const auto index = static_cast<std::size_t>(codec);
  PYCCL_ASSERT(index < PYCCL_CODEC_COUNT);
  return index;
}

std::size_t index_of(Rounding rounding) {
  const auto index = static_cast<std::size_t>(rounding);
  PYCCL_ASSERT(index < PYCCL_ROUNDING_COUNT);
  return index;
}

std::size_t index_of(DataType type) {
  PYCCL_ASSERT(is_floating(type));
  return static_cast<std::size_t>(type);
}

}  // namespace

Status check(const BlockFormat& format) {
  const auto refuse = [](std::string reason) {
    return Status(Code::invalid_argument, std::move(reason));
  };
  const auto codec = static_cast<unsigned>(format.codec);
  if (codec >= PYCCL_CODEC_COUNT)
    return refuse("there is no codec number " + std::to_string(codec));
  if (format.codec == Codec::none) return refuse("\"none\" has no blocks");
  if (format.block < block_elements_min || format.block > block_elements_max ||
      format.block % block_elements_min != 0) {
    return refuse("a block has 32 to 1024 elements, a multiple of 32, not " +
                  std::to_string(format.block));
  }
  if (format.scale != DataType::f32 && format.scale != DataType::bf16) {
    return refuse("scales are f32 or bf16");
  }
  return {};
}

std::string_view name_of(Codec codec) { return codecs[index_of(codec)].name; }
std::string_view name_of(Rounding rounding) { return roundings[index_of(rounding)]; }

std::size_t block_bytes(const BlockFormat& format) {
  const CodecTraits& codec = codecs[index_of(format.codec)];
  return size_of(format.scale) * (codec.minmax ? 2 : 1) + format.block * codec.bits / 8;
}

float encode(const EncodeArguments& arguments, const Target& target) {
  PYCCL_ASSERT(check(arguments.format).ok());
  PYCCL_ASSERT(is_floating(arguments.dtype) && is_floating(arguments.rounded_dtype));
  PYCCL_ASSERT(arguments.rounded != arguments.source || arguments.source == nullptr ||
               arguments.dtype == arguments.rounded_dtype);
  const std::size_t codec = index_of(arguments.format.codec);
  const FloatingMode mode;
  return target.quantize->encode[codec][index_of(arguments.rounding.mode)](arguments);
}

float decode(const DecodeArguments& arguments, const Target& target) {
  PYCCL_ASSERT(check(arguments.format).ok());
  PYCCL_ASSERT(is_floating(arguments.dtype));
  const FloatingMode mode;
  return target.quantize->decode[index_of(arguments.format.codec)](arguments);
}

float accumulate(const AccumulateArguments& arguments, const Target& target) {
  PYCCL_ASSERT(check(arguments.format).ok());
  const FloatingMode mode;
  return target.quantize->accumulate[index_of(arguments.format.codec)](arguments);
}

void widen(const std::byte* source, DataType dtype, std::size_t count, float* destination,
           const Target& target) {
  const std::size_t type = index_of(dtype);
  const FloatingMode mode;
  target.quantize->widen[type](source, count, destination);
}

void narrow(const float* source, std::size_t count, std::byte* destination, DataType dtype,
            const Target& target) {
  const std::size_t type = index_of(dtype);
  const FloatingMode mode;
  target.quantize->narrow[type](source, count, destination);
}

}  // namespace pyccl::kernels
