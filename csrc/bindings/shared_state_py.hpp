// runtime::SharedState for Python, with the buffers that its tensors lie in.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "bindings/arrays_py.hpp"
#include "runtime/communicator.hpp"
#include "runtime/shared_state.hpp"

namespace pyccl::bindings {

class StateFace {
 public:
  // Of (name, dtype, shape, object with a writable, contiguous buffer); checked in Python.
  StateFace(const pybind11::list& tensors, std::uint64_t revision, bool strict);

  std::uint64_t revision() const;
  void set_revision(std::uint64_t revision);
  void restored(std::uint64_t revision);
  std::uint64_t bytes() const { return state_->bytes(); }
  std::string digest();
  void spoil();
  pybind11::tuple void_tensors() const;

  // (why it failed or None, the fields of pyccl.SyncInfo in their order). What a signal handler or
  // `progress` raises comes out of here, when the sync has been given up.
  pybind11::tuple sync(runtime::Communicator& communicator, int strategy, bool expect_next,
                       double timeout, const pybind11::object& progress);

 private:
  HeldBuffers buffers_;
  std::unique_ptr<runtime::SharedState> state_;
};

}  // namespace pyccl::bindings
