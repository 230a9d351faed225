// Proves plans by running those of all ranks on symbols.
//
// An element is not a number but the expression that made it, as a hash, with the set of ranks in
// it. Transfers run as the executor runs them, segment by segment, and whatever could happen next
// may happen next, by a seeded draw. What a send reads is read at the last moment, when it arrives,
// so a plan that overwrites what may still be under way is found out. Partial and result count as
// one memory, and input too if in place.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::collectives {

struct CheckOptions {
  std::uint64_t count = 0;
  std::uint64_t segment = 4;
  std::uint64_t seed = 1;
  bool in_place = false;  // input and result are one buffer, and nothing is kept of the input
};

struct CheckReport {
  std::string fault;  // empty: every rank holds the same expression of all contributions
  std::vector<std::uint64_t> sent;  // elements, by rank
  std::uint64_t staged_max = 0;     // most elements that had arrived at one rank and waited
};

// plans[r] is the plan of rank r; there are at most 32.
CheckReport check_all_reduce(const std::vector<Plan>& plans, const CheckOptions& options);

}  // namespace pyccl::collectives
