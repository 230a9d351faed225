// What quantized calls ask for, and what must come out of them, computed one number after the
// other.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "base/prng.hpp"
#include "engine/request.hpp"

namespace pyccl::sim {

// Its blocks fit segments of that size.
engine::Quantization draw_quantization(Prng& prng, std::uint32_t segment_bytes);

// Numbers of one array as all but their sender see them; `salt` as in engine/coded_data.hpp.
Bytes rounded(const Bytes& array, kernels::DataType dtype, const engine::Quantization&,
              std::uint64_t salt = 0);

// A sum or average of arrays, in f32 and in their order.
struct QuantizedSum {
  kernels::DataType dtype;
  engine::Quantization quantization;
  bool each_rounded = true;    // the contributions
  bool result_rounded = true;  // and what they add up to
};
Bytes added_up(const std::vector<Bytes>& arrays, const std::vector<double>& weights, double divisor,
               const QuantizedSum&);

}  // namespace pyccl::sim
