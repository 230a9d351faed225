// A call that is under way, together with the memory that it may still touch.
#pragma once

#include <memory>

#include "bindings/arrays_py.hpp"
#include "runtime/communicator.hpp"
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

// To be called without Python's lock before it is asked for again: the interpreter ends daemon
// threads there, by unwinding their stacks, which C++ does not survive. When the program exits such
// a thread stays here.
void park_if_exiting();

// Waits until the call has ended. When a signal handler raises, the call is given up first: by the
// time that Python sees the exception, nothing is left behind.
void finish(OpenCall& call, runtime::Communicator& communicator);

}  // namespace pyccl::bindings
