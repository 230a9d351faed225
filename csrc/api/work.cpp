// pyccl_work, the handle of an operation under way.
#include "api/handles.hpp"

using pyccl::Code;
using pyccl::Status;
using pyccl::api::guarded;
using pyccl::api::refuse;
using pyccl::api::report;

extern "C" {

pyccl_code pyccl_work_wait(pyccl_work* work, double timeout) {
  return guarded([&]() -> pyccl_code {
    if (work == nullptr) return refuse("pyccl_work_wait: work is NULL");
    const auto limit = pyccl::api::timeout_of(timeout, PYCCL_OPERATION_TIMEOUT);
    if (!limit.ok()) return report(limit.status());
    if (!work->work->wait(limit.value())) {
      return report(Status(Code::timeout, "the operation is still going on"));
    }
    if (work->hint_taken.exchange(true)) return report(work->work->status());
    return pyccl::api::conclude(*work->shared, *work->work, true, nullptr);
  });
}

int pyccl_work_done(const pyccl_work* work) { return work != nullptr && work->work->done(); }

pyccl_code pyccl_work_info(const pyccl_work* work, pyccl_operation_info* info) {
  return guarded([&]() -> pyccl_code {
    if (work == nullptr) return refuse("pyccl_work_info: work is NULL");
    if (info == nullptr) return refuse("pyccl_work_info: info is NULL");
    if (!work->work->done()) return refuse("pyccl_work_info: the operation has not ended");
    if (!work->work->status().ok()) return report(work->work->status());
    pyccl::api::fill(*info, work->work->info());
    return PYCCL_OK;
  });
}

void pyccl_work_cancel(pyccl_work* work) {
  if (work != nullptr) work->shared->communicator->cancel(work->work);
}

void pyccl_work_free(pyccl_work* work) {
  if (work == nullptr) return;
  if (!work->work->done()) {
    work->shared->communicator->cancel(work->work);
    pyccl::api::wait(*work->work);
  }
  delete work;
}

}  // extern "C"
