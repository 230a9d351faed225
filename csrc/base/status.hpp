// What can go wrong at run time is a value: a code, a sentence that says what happened and what to
// do, and the peer at fault where there is one.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/assert.hpp"
#include "base/ids.hpp"
#include "pyccl.h"

namespace pyccl {

enum class Code : int {
  ok = PYCCL_OK,
  invalid_argument = PYCCL_INVALID_ARGUMENT,
  mismatch = PYCCL_MISMATCH,
  peer_lost = PYCCL_PEER_LOST,
  timeout = PYCCL_TIMEOUT,
  coordinator_unavailable = PYCCL_COORDINATOR_UNAVAILABLE,
  not_admitted = PYCCL_NOT_ADMITTED,
  evicted = PYCCL_EVICTED,
  cancelled = PYCCL_CANCELLED,
  closed = PYCCL_CLOSED,
  address_in_use = PYCCL_ADDRESS_IN_USE,
  limit_exceeded = PYCCL_LIMIT_EXCEEDED,
  protocol_violation = PYCCL_PROTOCOL_VIOLATION,
  io = PYCCL_IO,
  state_sync = PYCCL_STATE_SYNC,
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string reason, PeerId peer = {})
      : code_(code), reason_(std::move(reason)), peer_(peer) {}

  bool ok() const { return code_ == Code::ok; }
  Code code() const { return code_; }
  const std::string& reason() const { return reason_; }
  PeerId peer() const { return peer_; }
  bool operator==(const Status&) const = default;

 private:
  Code code_ = Code::ok;
  std::string reason_;
  PeerId peer_;
};

// A value or the Status that explains why there is none.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}
  Result(Status status) : state_(std::move(status)) {
    PYCCL_ASSERT(!std::get<Status>(state_).ok());
  }

  bool ok() const { return std::holds_alternative<T>(state_); }
  T& value() {
    PYCCL_ASSERT(ok());
    return std::get<T>(state_);
  }
  const T& value() const {
    PYCCL_ASSERT(ok());
    return std::get<T>(state_);
  }
  T take() {
    PYCCL_ASSERT(ok());
    return std::move(std::get<T>(state_));
  }
  Status status() const { return ok() ? Status{} : std::get<Status>(state_); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace pyccl
