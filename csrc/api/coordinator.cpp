// pyccl_coordinator: a runtime::Coordinator behind a handle.
#include <utility>

#include "api/handles.hpp"

using pyccl::api::guarded;
using pyccl::api::refuse;
using pyccl::api::report;

extern "C" {

pyccl_coordinator_options pyccl_coordinator_options_default(void) {
  return {"127.0.0.1:48148", nullptr, -1.0, nullptr, nullptr};
}

pyccl_code pyccl_coordinator_start(const pyccl_coordinator_options* options,
                                   pyccl_coordinator** coordinator) {
  return guarded([&]() -> pyccl_code {
    if (coordinator == nullptr) return refuse("pyccl_coordinator_start: coordinator is NULL");
    const pyccl_coordinator_options given =
        options != nullptr ? *options : pyccl_coordinator_options_default();
    if (given.bind == nullptr) return refuse("pyccl_coordinator_start: bind is NULL");
    pyccl::runtime::CoordinatorSettings settings;
    settings.bind = given.bind;
    if (given.state_path != nullptr) settings.state_path = given.state_path;
    const double usual = std::chrono::duration<double>(settings.timing.heartbeat_limit).count();
    const auto heartbeat_limit = pyccl::api::timeout_of(given.heartbeat_limit, usual);
    if (!heartbeat_limit.ok()) return report(heartbeat_limit.status());
    settings.timing.heartbeat_limit = heartbeat_limit.value();
    settings.log = pyccl::api::sink_of(given.log, given.log_context);
    auto started = pyccl::runtime::Coordinator::start(settings);
    if (!started.ok()) return report(started.status());
    auto handle = std::make_unique<pyccl_coordinator>();
    handle->coordinator = started.take();
    handle->address = handle->coordinator->address();
    *coordinator = handle.release();
    return PYCCL_OK;
  });
}

const char* pyccl_coordinator_address(const pyccl_coordinator* coordinator) {
  return coordinator != nullptr ? coordinator->address.c_str() : nullptr;
}

void pyccl_coordinator_stop(pyccl_coordinator* coordinator) {
  if (coordinator != nullptr) coordinator->coordinator->stop();
}

void pyccl_coordinator_free(pyccl_coordinator* coordinator) { delete coordinator; }

}  // extern "C"
