// The tables; see mark.hpp.
#include "base/mark.hpp"

#ifdef PYCCL_SIMULATION

namespace pyccl {

MarkTable& marks() {
  static MarkTable table;
  return table;
}

MarkTable& mutants() {
  static MarkTable table;
  return table;
}

}  // namespace pyccl

#endif
