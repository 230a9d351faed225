// The outer step of local SGD methods: momentum SGD as PyTorch defines it, with the same bits on
// all ranks.
#pragma once

#include <cstddef>
#include <limits>
#include <span>

namespace pyccl::kernels {

struct OuterStep {
  float rate;
  float momentum;
  bool nesterov;  // else heavy ball
  float divisor = 1.0F;
  float limit = std::numeric_limits<float>::infinity();  // of each element of the buffer
};

// Each line is rounded to f32 by itself, in this order and without fused multiply-adds:
//
//   mean   = gradient / divisor
//   buffer = momentum * buffer + mean, and no further from 0 than limit
//   step   = mean + momentum * buffer   (heavy ball: buffer)
//   params = params - rate * step
//
// The three spans are as long as each other, and none overlaps another.
void outer_step(std::span<float> params, std::span<float> buffer, std::span<const float> gradient,
                const OuterStep& how);

}  // namespace pyccl::kernels
