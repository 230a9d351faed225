// A call that is under way, together with the memory that it may still touch.
#pragma once

#include <memory>

#include "bindings/arrays_py.hpp"
#include "runtime/work.hpp"

namespace pyccl::bindings {

// Shared by the Python object and by the communicator's list of open calls, so that the memory
// outlives an operation whose Work was dropped.
struct OpenCall {
  runtime::WorkPtr work;
  HeldBuffers buffers;
};
using OpenCallPtr = std::shared_ptr<OpenCall>;

// True when the call has ended within so many seconds (negative: no bound). Waits without Python's
// lock, in slices between which signal handlers run; what they raise comes out of here, and the
// call goes on. With interruptible = false signals wait.
bool wait(OpenCall& call, double seconds, bool interruptible);

}  // namespace pyccl::bindings
