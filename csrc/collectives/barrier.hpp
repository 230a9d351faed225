// Barrier: nobody returns before everybody has called.
#pragma once

#include "collectives/plan.hpp"

namespace pyccl::collectives {

Plan barrier();

}  // namespace pyccl::collectives
