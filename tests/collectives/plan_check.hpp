// Proves plans by running those of all ranks on symbols.
//
// An element is not a number but the expression that made it, with the place that it comes from.
// Transfers run as the executor runs them, segment by segment, and whatever could happen next may
// happen next, by a seeded draw. What a send reads is read at the last moment, when it arrives, so
// a plan that overwrites what may still be under way is found out.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "collectives/plan.hpp"
#include "collectives/task.hpp"

namespace pyccl::collectives {

struct CheckOptions {
  std::uint64_t segment = 4;
  std::uint64_t seed = 1;
  // Input and result share memory where they can; nothing is kept of the input but by those plans
  // that ask for it.
  bool in_place = true;
};

struct CheckReport {
  // Empty: every rank's result is what the task says, for all_reduce by the same expression.
  std::string fault;
  std::vector<std::uint64_t> sent;  // elements, by rank
  std::uint64_t staged_max = 0;     // most elements that had arrived at one rank and waited
  // Of all results, those of one rank behind those of another: equal where the bits are.
  std::vector<std::uint64_t> expressions;
};

// plans[r] is the plan of rank r; there are at most 32.
CheckReport check(const Task& task, const std::vector<Plan>& plans, const CheckOptions& options);

}  // namespace pyccl::collectives
