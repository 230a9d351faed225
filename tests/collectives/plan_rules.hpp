// What must hold of plans before any of them runs: see plan.hpp, whose comments these rules are.
#pragma once

#include <string>
#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::collectives {

// The first rule that is broken, as a sentence; empty if none is.
std::string broken_rule(const std::vector<Plan>& plans, std::uint64_t count);

// The receive or fold that takes what `from` sends in a step: at most one of the two is set.
struct Taker {
  const Receive* receive = nullptr;
  const Fold* fold = nullptr;
};
Taker taker_of(const Step& step, Rank from);

}  // namespace pyccl::collectives
