// Coverage marks and planted bugs: both exist only in simulator builds (PYCCL_SIMULATION) and cost
// nothing elsewhere.
//
// PYCCL_MARK("evicted during commit") notes that a rare path was taken; the simulator sums marks
// over many seeds, and a mark that is never hit is an untested path.
// PYCCL_MUTANT("commit-after-first-done") is false unless the simulator was told to plant that bug.
#pragma once

#ifdef PYCCL_SIMULATION

#include <set>
#include <string>

namespace pyccl {
void hit_mark(const char* name, bool& is_hit);
bool mutant_active(const char* name);

// For the simulator's driver.
const std::set<std::string>& marks_hit();
void plant_mutant(const std::string& name);
}  // namespace pyccl

// The flag is per call site, so that a hot path pays for the table only once a run.
#define PYCCL_MARK(name)                          \
  do {                                            \
    static thread_local bool mark_is_hit = false; \
    ::pyccl::hit_mark(name, mark_is_hit);         \
  } while (false)
#define PYCCL_MUTANT(name) (::pyccl::mutant_active(name))

#else

#define PYCCL_MARK(name) static_cast<void>(0)
#define PYCCL_MUTANT(name) false

#endif
