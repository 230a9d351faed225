// Tables of coverage marks and planted bugs, for simulator builds only. The simulator is one
// thread, so a plain ordered table will do.
#include "base/mark.hpp"

#ifdef PYCCL_SIMULATION

namespace pyccl {
namespace {

std::set<std::string>& marks() {
  static std::set<std::string> table;
  return table;
}

std::string& mutant() {
  static std::string name;
  return name;
}

}  // namespace

void hit_mark(const char* name, bool& is_hit) {
  if (is_hit) return;
  is_hit = true;
  marks().insert(name);
}

bool mutant_active(const char* name) { return mutant() == name; }

const std::set<std::string>& marks_hit() { return marks(); }

void plant_mutant(const std::string& name) { mutant() = name; }

}  // namespace pyccl

#endif
