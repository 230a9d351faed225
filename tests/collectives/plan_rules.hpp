// What must hold of plans before any of them runs: see plan.hpp, whose comments these rules are.
#pragma once

#include <string>
#include <vector>

#include "collectives/plan.hpp"
#include "collectives/task.hpp"

namespace pyccl::collectives {

// The first rule that is broken, as a sentence; empty if none is. plans[r] is the plan of rank r.
std::string broken_rule(const Task& task, const std::vector<Plan>& plans);

// The receive or fold that takes what `from` sends in a step: at most one of the two is set.
struct Taker {
  const Receive* receive = nullptr;
  const Fold* fold = nullptr;
};
Taker taker_of(const Step& step, Rank from);

}  // namespace pyccl::collectives
