// The extension module pyccl._core: a thin mirror of the runtime layer. Comfort, words and defaults
// are Python's, in pyccl/*.py.
//
// Threads: no thread of the core ever takes Python's lock. What the core has to tell goes through a
// queue and an event descriptor that a Python thread reads, so a busy interpreter can't stall the
// reactor, and neither can one that shuts down.
#include "bindings/register_py.hpp"

PYBIND11_MODULE(_core, module) {
  using namespace pyccl::bindings;
  register_enums(module);
  register_log(module);
  register_dlpack(module);
  register_arrays(module);
  register_quantize(module);
  register_outer(module);
  register_work(module);
  register_shared_state(module);
  register_communicator(module);
  register_coordinator(module);
}
