// Blocks of numbers to blocks of codes and back, written once for lanes of any width and compiled
// by each target_*.cpp for its processor.
//
// A block is read twice, for its scale and for its codes; the second time it comes from the cache.
// Numbers that are not stored as f32, and blocks that are not full, go by way of buffers on the
// stack that stay in the cache too, so that the loops over numbers know one type and full blocks.
#pragma once

#include "kernels/convert_body.hpp"
#include "kernels/quantize_call.hpp"
#include "kernels/quantize_decode.hpp"
#include "kernels/quantize_encode.hpp"

namespace pyccl::kernels {
namespace {

template <class Codec>
constexpr void fill_codec(QuantizeBodies& bodies, std::size_t codec) {
  bodies.encode[codec][PYCCL_ROUNDING_NEAREST] = &encode_blocks<Codec, false>;
  bodies.encode[codec][PYCCL_ROUNDING_STOCHASTIC] = &encode_blocks<Codec, true>;
  bodies.decode[codec] = &decode_blocks<Codec>;
  bodies.accumulate[codec] = &accumulate_blocks<Codec>;
}

constexpr QuantizeBodies make_quantize_bodies() {
  QuantizeBodies bodies{};
  fill_codec<Int8>(bodies, PYCCL_CODEC_INT8);
  fill_codec<Int8MinMax>(bodies, PYCCL_CODEC_INT8_MINMAX);
  fill_codec<Int4>(bodies, PYCCL_CODEC_INT4);
  fill_codec<Int4MinMax>(bodies, PYCCL_CODEC_INT4_MINMAX);
  fill_codec<Fp8E4M3>(bodies, PYCCL_CODEC_FP8_E4M3);
  fill_codec<Fp8E5M2>(bodies, PYCCL_CODEC_FP8_E5M2);
  fill_codec<Fp4E3M0>(bodies, PYCCL_CODEC_FP4_E3M0);
  fill_codec<Fp4E2M1>(bodies, PYCCL_CODEC_FP4_E2M1);
  for (std::size_t type = 0; type < floating_type_count; ++type) {
    bodies.widen[type] = widen_of[type];
    bodies.narrow[type] = narrow_of[type];
  }
  return bodies;
}

}  // namespace
}  // namespace pyccl::kernels
