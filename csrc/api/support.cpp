// Errors, version, and what all functions of the C API share.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <utility>

#include "api/handles.hpp"

namespace pyccl::api {

namespace {

thread_local std::string last_error;

// A year in seconds: more is as good as for ever, and far from overflowing.
constexpr double seconds_max = 3600.0 * 24 * 365;

static_assert(static_cast<int>(LogLevel::debug) == PYCCL_LOG_DEBUG);
static_assert(static_cast<int>(LogLevel::info) == PYCCL_LOG_INFO);
static_assert(static_cast<int>(LogLevel::warning) == PYCCL_LOG_WARNING);
static_assert(static_cast<int>(LogLevel::error) == PYCCL_LOG_ERROR);

}  // namespace

pyccl_code report(const Status& status) {
  if (!status.ok()) last_error = status.reason();
  return static_cast<pyccl_code>(status.code());
}

pyccl_code refuse(const char* sentence) {
  last_error = sentence;
  return PYCCL_INVALID_ARGUMENT;
}

Result<Duration> timeout_of(double seconds, double default_seconds) {
  if (std::isnan(seconds)) return Status(Code::invalid_argument, "a timeout is not a number");
  // Before the conversion: a double beyond the range of the integer would be undefined.
  const double meant = std::min(seconds < 0 ? default_seconds : seconds, seconds_max);
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(meant));
}

LogSink sink_of(pyccl_log_function function, void* context) {
  if (function == nullptr) return {};
  return [function, context](LogLevel level, std::string_view text) {
    function(context, static_cast<pyccl_log_level>(level), std::string(text).c_str());
  };
}

const Status& wait(runtime::Work& work) {
  while (!work.wait(1h)) {
  }
  return work.status();
}

void fill(pyccl_operation_info& out, const engine::OperationInfo& info) {
  out = {};
  out.world_size = info.world_size;
  out.members = info.members;
  out.epoch_incarnation = info.epoch.incarnation;
  out.epoch_counter = info.epoch.counter;
  out.attempts = info.attempts;
  out.peers_pending = info.peers_pending ? 1 : 0;
  out.bytes_sent = info.bytes_sent;
  out.bytes_received = info.bytes_received;
  out.weight_sum = info.weight_sum;
  out.seconds = info.seconds;
  out.wire_ratio = info.wire_ratio;
  out.bytes_packed = info.bytes_packed;
  out.quantization_step = static_cast<double>(info.quantization_step);
  out.source = info.source;
  // The rest is zero already, the end of the string included.
  info.algorithm.copy(out.algorithm, sizeof out.algorithm - 1);
}

pyccl_code conclude(Communicator& shared, const runtime::Work& work, bool hint,
                    pyccl_operation_info* info) {
  if (!work.status().ok()) return report(work.status());
  // Relaxed: the caller who decides on it is the thread that has waited.
  if (hint) shared.peers_pending.store(work.info().peers_pending, std::memory_order_relaxed);
  if (info != nullptr) fill(*info, work.info());
  return PYCCL_OK;
}

}  // namespace pyccl::api

extern "C" {

const char* pyccl_error_text(void) { return pyccl::api::last_error.c_str(); }

const char* pyccl_code_name(pyccl_code code) {
  switch (pyccl::api::number_of(code)) {
    case PYCCL_OK: return "PYCCL_OK";
    case PYCCL_INVALID_ARGUMENT: return "PYCCL_INVALID_ARGUMENT";
    case PYCCL_MISMATCH: return "PYCCL_MISMATCH";
    case PYCCL_PEER_LOST: return "PYCCL_PEER_LOST";
    case PYCCL_TIMEOUT: return "PYCCL_TIMEOUT";
    case PYCCL_COORDINATOR_UNAVAILABLE: return "PYCCL_COORDINATOR_UNAVAILABLE";
    case PYCCL_NOT_ADMITTED: return "PYCCL_NOT_ADMITTED";
    case PYCCL_EVICTED: return "PYCCL_EVICTED";
    case PYCCL_CANCELLED: return "PYCCL_CANCELLED";
    case PYCCL_CLOSED: return "PYCCL_CLOSED";
    case PYCCL_ADDRESS_IN_USE: return "PYCCL_ADDRESS_IN_USE";
    case PYCCL_LIMIT_EXCEEDED: return "PYCCL_LIMIT_EXCEEDED";
    case PYCCL_PROTOCOL_VIOLATION: return "PYCCL_PROTOCOL_VIOLATION";
    case PYCCL_IO: return "PYCCL_IO";
    case PYCCL_STATE_SYNC: return "PYCCL_STATE_SYNC";
    default: return "unknown";
  }
}

const char* pyccl_version(void) { return PYCCL_VERSION; }

}  // extern "C"
