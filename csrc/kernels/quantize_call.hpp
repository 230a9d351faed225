// What one instruction set has for quantize.hpp, called by quantize.cpp alone.
//
// As with folds (fold_call.hpp) the arguments are checked and the floating-point mode is fixed in a
// file that is compiled for the plainest processor; the bodies see plain structs.
#pragma once

#include <cstddef>

#include "kernels/quantize.hpp"

namespace pyccl::kernels {

// f32, f64, f16 and bf16 are the first data types.
inline constexpr std::size_t floating_type_count = 4;

struct QuantizeBodies {
  using Encode = float (*)(const EncodeArguments&);
  using Decode = float (*)(const DecodeArguments&);
  using Accumulate = float (*)(const AccumulateArguments&);
  using Widen = void (*)(const std::byte* source, std::size_t count, float* destination);
  using Narrow = void (*)(const float* source, std::size_t count, std::byte* destination);

  // None of PYCCL_CODEC_NONE.
  Encode encode[PYCCL_CODEC_COUNT][PYCCL_ROUNDING_COUNT];
  Decode decode[PYCCL_CODEC_COUNT];
  Accumulate accumulate[PYCCL_CODEC_COUNT];
  Widen widen[floating_type_count];
  Narrow narrow[floating_type_count];
};

}  // namespace pyccl::kernels
