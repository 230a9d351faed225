// The all-reduce in its three forms, and pyccl_work, the handle of one under way.
#include <utility>

#include "api/handles.hpp"

using pyccl::Code;
using pyccl::Duration;
using pyccl::Result;
using pyccl::Status;
using pyccl::api::guarded;
using pyccl::api::number_of;
using pyccl::api::refuse;
using pyccl::api::report;

namespace {

struct Request {
  pyccl::engine::AllReduceRequest request;
  Duration timeout{};
};

bool within(int number, int count) { return number >= 0 && number < count; }

Result<Request> request_from(const pyccl_array* arrays, size_t array_count,
                             const pyccl_all_reduce_options* options) {
  const auto invalid = [](std::string why) {
    return Status(Code::invalid_argument, "pyccl_all_reduce: " + std::move(why));
  };
  const pyccl_all_reduce_options given =
      options != nullptr ? *options : pyccl_all_reduce_options_default();
  if (arrays == nullptr && array_count > 0) return invalid("arrays is NULL");
  const int op = number_of(given.op);
  const int on_loss = number_of(given.on_loss);
  const int algorithm = number_of(given.algorithm);
  if (!within(op, PYCCL_REDOP_COUNT)) return invalid("unknown op " + std::to_string(op));
  if (!within(on_loss, PYCCL_ON_LOSS_RAISE + 1)) return invalid("unknown on_loss");
  if (!within(algorithm, PYCCL_ALGORITHM_ONE_SHOT + 1)) return invalid("unknown algorithm");
  const auto timeout = pyccl::api::timeout_of(given.timeout, PYCCL_OPERATION_TIMEOUT);
  if (!timeout.ok()) return timeout.status();

  Request made;
  made.timeout = timeout.value();
  made.request.op = static_cast<pyccl::kernels::ReduceOp>(op);
  made.request.weight = given.weight;
  made.request.tag = given.tag;
  made.request.on_loss = static_cast<pyccl::engine::OnLoss>(on_loss);
  made.request.algorithm = static_cast<pyccl_algorithm>(algorithm);
  for (size_t i = 0; i < array_count; ++i) {
    const pyccl_array& each = arrays[i];
    const std::string name = "array " + std::to_string(i);
    const int dtype = number_of(each.dtype);
    if (!within(dtype, PYCCL_DTYPE_COUNT)) {
      return invalid(name + " has unknown dtype " + std::to_string(dtype));
    }
    if (each.count > 0 && (each.input == nullptr || each.output == nullptr)) {
      return invalid(name + " is NULL");
    }
    made.request.arrays.push_back({static_cast<const std::byte*>(each.input),
                                   static_cast<std::byte*>(each.output),
                                   static_cast<pyccl::kernels::DataType>(dtype), each.count});
  }
  return made;
}

}  // namespace

extern "C" {

pyccl_all_reduce_options pyccl_all_reduce_options_default(void) {
  return {PYCCL_SUM, 1.0, 0, PYCCL_ON_LOSS_RETRY, PYCCL_ALGORITHM_AUTO, -1.0};
}

pyccl_code pyccl_all_reduce_list(pyccl_communicator* communicator, const pyccl_array* arrays,
                                 size_t array_count, const pyccl_all_reduce_options* options,
                                 pyccl_operation_info* info) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_all_reduce: communicator is NULL");
    auto request = request_from(arrays, array_count, options);
    if (!request.ok()) return report(request.status());
    const auto shared = communicator->shared;
    Request made = request.take();
    const auto work = shared->communicator->all_reduce(std::move(made.request), made.timeout,
                                                       pyccl::runtime::Then::waits);
    pyccl::api::wait(*work);
    return pyccl::api::conclude(*shared, *work, info);
  });
}

pyccl_code pyccl_all_reduce(pyccl_communicator* communicator, const void* input, void* output,
                            uint64_t count, pyccl_dtype dtype,
                            const pyccl_all_reduce_options* options, pyccl_operation_info* info) {
  pyccl_array array{input, output, count, PYCCL_F32};
  // As bits: the number may be out of range, which is judged further in.
  __builtin_memcpy(&array.dtype, &dtype, sizeof dtype);
  return pyccl_all_reduce_list(communicator, &array, 1, options, info);
}

pyccl_code pyccl_all_reduce_async(pyccl_communicator* communicator, const pyccl_array* arrays,
                                  size_t array_count, const pyccl_all_reduce_options* options,
                                  pyccl_work** work) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_all_reduce_async: communicator is NULL");
    if (work == nullptr) return refuse("pyccl_all_reduce_async: work is NULL");
    auto request = request_from(arrays, array_count, options);
    if (!request.ok()) return report(request.status());
    Request made = request.take();
    // The handle first: nothing may fail once the operation uses the caller's memory.
    auto handle = std::make_unique<pyccl_work>();
    handle->shared = communicator->shared;
    handle->work = handle->shared->communicator->all_reduce(std::move(made.request), made.timeout);
    *work = handle.release();
    return PYCCL_OK;
  });
}

pyccl_code pyccl_work_wait(pyccl_work* work, double timeout) {
  return guarded([&]() -> pyccl_code {
    if (work == nullptr) return refuse("pyccl_work_wait: work is NULL");
    const auto limit = pyccl::api::timeout_of(timeout, PYCCL_OPERATION_TIMEOUT);
    if (!limit.ok()) return report(limit.status());
    if (!work->work->wait(limit.value())) {
      return report(Status(Code::timeout, "the operation is still going on"));
    }
    if (work->hint_taken.exchange(true)) return report(work->work->status());
    return pyccl::api::conclude(*work->shared, *work->work, nullptr);
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
