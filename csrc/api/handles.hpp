// What the opaque handles of pyccl.h are, and how arguments and failures cross the border: nothing
// that a C caller hands in is trusted, and no exception leaves.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <type_traits>

#include "base/log.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "pyccl.h"
#include "runtime/communicator.hpp"
#include "runtime/coordinator.hpp"
#include "runtime/subgroup.hpp"
#include "runtime/work.hpp"

struct pyccl_coordinator {
  std::unique_ptr<pyccl::runtime::Coordinator> coordinator;
  std::string address;
};

namespace pyccl::api {

// Shared with its works, which may outlive the handle.
struct Communicator {
  std::unique_ptr<runtime::Communicator> communicator;
  std::atomic<bool> peers_pending = false;
};

}  // namespace pyccl::api

// Of the whole group, or of a subgroup.
struct pyccl_communicator {
  std::shared_ptr<pyccl::api::Communicator> shared;
  std::optional<pyccl::runtime::Subgroup> subgroup;
};

struct pyccl_work {
  std::shared_ptr<pyccl::api::Communicator> shared;
  pyccl::runtime::WorkPtr work;
  // Only the first successful wait moves peers_pending on: a second look at an old operation must
  // not bring its hint back (rule R10). That of an operation in which not all members took part is
  // never taken.
  std::atomic<bool> hint_taken = false;
};

namespace pyccl::api {

// Keeps the sentence for pyccl_error_text() of this thread.
pyccl_code report(const Status&);
pyccl_code refuse(const char* sentence);

// Seconds of a caller; below 0 is the default.
Result<Duration> timeout_of(double seconds, double default_seconds);

// A C caller may put any number into an enumeration; in C++ even reading one that is out of range
// is undefined, so it is copied out as what it is.
template <class Enum>
  requires std::is_enum_v<Enum>
int number_of(const Enum& value) {
  static_assert(sizeof(Enum) == sizeof(int));
  int number;
  __builtin_memcpy(&number, &value, sizeof number);
  return number;
}

LogSink sink_of(pyccl_log_function function, void* context);

// Runs the body of an API function.
template <class Body>
pyccl_code guarded(Body body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return refuse("out of memory");
  } catch (const std::exception& error) {
    return refuse(error.what());
  }
}

// Waits for as long as it takes: every call ends by itself, at its deadline at the latest.
const Status& wait(runtime::Work&);

// What an operation's end means for its caller, and with `hint` for peers_pending.
pyccl_code conclude(Communicator&, const runtime::Work&, bool hint, pyccl_operation_info* info);
void fill(pyccl_operation_info& out, const engine::OperationInfo& info);

}  // namespace pyccl::api
