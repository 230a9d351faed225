// A reduction of one rank: its own input, which a weight may scale.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

inline Plan reduce_alone(std::uint64_t count) {
  Plan plan;
  if (count > 0) plan.steps.push_back({{}, {}, {{{0, count}, {0}}}, {}});
  return plan;
}

}  // namespace pyccl::collectives
