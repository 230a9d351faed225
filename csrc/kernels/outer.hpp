// The outer step of local SGD methods: momentum SGD as PyTorch defines it, with the same bits on
// all ranks.
#pragma once

#include <cstddef>
#include <span>

namespace pyccl::kernels {

struct OuterStep {
  float rate;
  float momentum;
  bool nesterov;  // else heavy ball
};

// Each line is rounded to f32 by itself, in this order and without fused multiply-adds:
//
//   buffer = momentum * buffer + gradient
//   step   = gradient + momentum * buffer   (heavy ball: buffer)
//   params = params - rate * step
//
// The three spans are as long as each other, and none overlaps another.
void outer_step(std::span<float> params, std::span<float> buffer, std::span<const float> gradient,
                const OuterStep& how);

}  // namespace pyccl::kernels
