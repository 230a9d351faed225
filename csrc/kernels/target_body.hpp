// All kernels of one instruction set; what a target_*.cpp includes.
#pragma once

#include "kernels/digest_body.hpp"
#include "kernels/fold_body.hpp"
#include "kernels/quantize_body.hpp"

namespace pyccl::kernels {
namespace {

constinit const QuantizeBodies quantize_bodies = make_quantize_bodies();

constexpr Target make_target(std::string_view name) {
  Target target{name, {}, &quantize_bodies, &digest};
  fill_folds(target);
  return target;
}

}  // namespace
}  // namespace pyccl::kernels
