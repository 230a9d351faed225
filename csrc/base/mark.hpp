// Coverage marks and planted bugs: both exist only in simulator builds (PYCCL_SIMULATION) and cost
// nothing elsewhere.
//
// PYCCL_MARK("evicted during commit") notes that a rare path was taken; the simulator sums marks
// over many seeds, and a mark that is never hit is an untested path.
// PYCCL_MUTANT("commit-after-first-done") is false unless the simulator was told to plant that bug.
#pragma once

#ifdef PYCCL_SIMULATION

#include <algorithm>
#include <cstddef>
#include <map>
#include <string>

namespace pyccl {

// All marks, or all mutants, of the program by name, and whether each is hit or planted.
using MarkTable = std::map<std::string, bool*>;
MarkTable& marks();
MarkTable& mutants();

template <std::size_t size>
struct MarkName {
  consteval MarkName(const char (&name)[size]) { std::copy_n(name, size, text); }
  char text[size];
};

// One object per name. It enters the table before main(), so that names never met are known too.
class MarkFlag {
 public:
  MarkFlag(MarkTable& table, const char* name) { table.emplace(name, &on); }
  bool on = false;
};
template <MarkName name>
inline MarkFlag mark_flag{marks(), name.text};
template <MarkName name>
inline MarkFlag mutant_flag{mutants(), name.text};

}  // namespace pyccl

#define PYCCL_MARK(name) static_cast<void>(::pyccl::mark_flag<name>.on = true)
#define PYCCL_MUTANT(name) (::pyccl::mutant_flag<name>.on)

#else

#define PYCCL_MARK(name) static_cast<void>(0)
#define PYCCL_MUTANT(name) false

#endif
