// See quantized.hpp.
#include "sim/byte/quantized.hpp"

#include "engine/coded_data.hpp"
#include "kernels/quantize.hpp"

namespace pyccl::sim {
namespace {

using kernels::DataType;
using Numbers = std::vector<float>;

Numbers widened(const Bytes& array, DataType dtype) {
  Numbers numbers(array.size() / kernels::size_of(dtype));
  kernels::widen(array.data(), dtype, numbers.size(), numbers.data());
  return numbers;
}

Bytes narrowed(const Numbers& numbers, DataType dtype) {
  Bytes array(numbers.size() * kernels::size_of(dtype));
  kernels::narrow(numbers.data(), numbers.size(), array.data(), dtype);
  return array;
}

void round(Numbers& numbers, const engine::Quantization& quantization, std::uint64_t salt) {
  const kernels::BlockFormat& format = quantization.format;
  Bytes blocks((numbers.size() / format.block + 1) * kernels::block_bytes(format));
  auto* at = reinterpret_cast<std::byte*>(numbers.data());
  kernels::encode({.source = at,
                   .count = numbers.size(),
                   .destination = blocks.data(),
                   .format = format,
                   .rounding = {quantization.rounding, quantization.seed ^ salt, 0}});
  kernels::decode(
      {.source = blocks.data(), .format = format, .count = numbers.size(), .destination = at});
}

}  // namespace

engine::Quantization draw_quantization(Prng& prng, std::uint32_t segment_bytes) {
  engine::Quantization drawn;
  drawn.format.codec = static_cast<kernels::Codec>(prng.between(1, PYCCL_CODEC_COUNT - 1));
  // A block of f32, as which a partial sum may travel, fits a segment.
  drawn.format.block = segment_bytes >= 256 && prng.chance(1, 2) ? 64 : 32;
  drawn.format.scale = prng.chance(1, 2) ? DataType::f32 : DataType::bf16;
  drawn.partial = prng.chance(1, 2) ? DataType::f32 : DataType::bf16;
  drawn.rounding = prng.chance(1, 2) ? kernels::Rounding::nearest : kernels::Rounding::stochastic;
  drawn.seed = prng.next();
  drawn.zstd = prng.chance(1, 2);
  return drawn;
}

Bytes rounded(const Bytes& array, DataType dtype, const engine::Quantization& quantization,
              std::uint64_t salt) {
  Numbers numbers = widened(array, dtype);
  round(numbers, quantization, salt);
  return narrowed(numbers, dtype);
}

Bytes added_up(const std::vector<Bytes>& arrays, const std::vector<double>& weights, double divisor,
               const QuantizedSum& how) {
  Numbers sum;
  for (std::size_t rank = 0; rank < arrays.size(); ++rank) {
    Numbers own = widened(arrays[rank], how.dtype);
    if (how.each_rounded) round(own, how.quantization, 0);
    const auto weight = static_cast<float>(weights[rank]);
    for (std::size_t i = 0; i < own.size(); ++i) {
      if (rank == 0) {
        sum.push_back(weight * own[i]);
      } else {
        sum[i] += weight * own[i];
      }
    }
  }
  for (float& value : sum) value /= static_cast<float>(divisor);
  if (how.result_rounded) round(sum, how.quantization, engine::result_salt);
  return narrowed(sum, how.dtype);
}

}  // namespace pyccl::sim
