// Any operation: what a pyccl_call asks for becomes a request, which is run or started.
#include <utility>

#include "api/handles.hpp"

using pyccl::Code;
using pyccl::Duration;
using pyccl::PeerId;
using pyccl::Rank;
using pyccl::Result;
using pyccl::Status;
using pyccl::api::guarded;
using pyccl::api::number_of;
using pyccl::api::refuse;
using pyccl::api::report;
using pyccl::collectives::Kind;

namespace {

static_assert(static_cast<int>(Kind::all_reduce) == PYCCL_ALL_REDUCE);
static_assert(static_cast<int>(Kind::barrier) == PYCCL_BARRIER);
static_assert(static_cast<int>(Kind::all_gather) == PYCCL_ALL_GATHER);
static_assert(static_cast<int>(Kind::all_to_all) == PYCCL_ALL_TO_ALL);
static_assert(static_cast<int>(Kind::reduce_scatter) == PYCCL_REDUCE_SCATTER);
static_assert(static_cast<int>(Kind::broadcast) == PYCCL_BROADCAST);
static_assert(static_cast<int>(Kind::reduce) == PYCCL_REDUCE);
static_assert(static_cast<int>(Kind::gather) == PYCCL_GATHER);
static_assert(static_cast<int>(Kind::scatter) == PYCCL_SCATTER);
static_assert(static_cast<int>(Kind::send) == PYCCL_SEND);
static_assert(static_cast<int>(Kind::exchange) == PYCCL_EXCHANGE);
static_assert(pyccl::runtime::any_source == PYCCL_ANY_SOURCE);

struct Prepared {
  pyccl::engine::Request request;
  Duration timeout{};
  // Whether all members take part, so that they see its hint alike.
  bool for_all = true;
};

Status invalid(std::string why) { return {Code::invalid_argument, std::move(why)}; }

bool within(int number, int count) { return number >= 0 && number < count; }

bool is_pair(int collective) {
  return collective == PYCCL_SEND || collective == PYCCL_RECV || collective == PYCCL_EXCHANGE;
}

bool has_root(Kind kind) {
  return kind == Kind::broadcast || kind == Kind::reduce || kind == Kind::gather ||
         kind == Kind::scatter;
}

// Whether they go together is checked further in.
Status take_quantization(const pyccl_quantization& given, pyccl::engine::Quantization& made) {
  const int codec = number_of(given.codec);
  const int rounding = number_of(given.rounding);
  const int scale = number_of(given.scale);
  const int partial = number_of(given.partial);
  if (!within(codec, PYCCL_CODEC_COUNT)) return invalid("unknown codec " + std::to_string(codec));
  if (codec == PYCCL_CODEC_NONE) return {};
  if (!within(rounding, PYCCL_ROUNDING_COUNT)) return invalid("unknown rounding");
  if (!within(scale, PYCCL_DTYPE_COUNT)) return invalid("unknown dtype of scales");
  if (!within(partial, PYCCL_DTYPE_COUNT)) return invalid("unknown dtype of partial sums");
  made.format = {static_cast<pyccl::kernels::Codec>(codec), given.block,
                 static_cast<pyccl::kernels::DataType>(scale)};
  made.partial = static_cast<pyccl::kernels::DataType>(partial);
  made.rounding = static_cast<pyccl::kernels::Rounding>(rounding);
  made.seed = given.seed;
  made.zstd = given.zstd != 0;
  return {};
}

Status take_options(const pyccl_operation_options& given, Prepared& made) {
  pyccl::engine::Request& request = made.request;
  const int op = number_of(given.op);
  const int on_loss = number_of(given.on_loss);
  const int algorithm = number_of(given.algorithm);
  if (!within(op, PYCCL_REDOP_COUNT)) return invalid("unknown op " + std::to_string(op));
  if (!within(on_loss, PYCCL_ON_LOSS_RAISE + 1) && on_loss != PYCCL_ON_LOSS_DEFAULT) {
    return invalid("unknown on_loss");
  }
  if (!within(algorithm, PYCCL_ALGORITHM_COUNT)) return invalid("unknown algorithm");
  const auto timeout = pyccl::api::timeout_of(given.timeout, PYCCL_OPERATION_TIMEOUT);
  if (!timeout.ok()) return timeout.status();
  made.timeout = timeout.value();
  request.op = static_cast<pyccl::kernels::ReduceOp>(op);
  request.weight = given.weight;
  request.tag = given.tag;
  request.on_loss = on_loss == PYCCL_ON_LOSS_DEFAULT ? pyccl::engine::usual_on_loss(request.kind)
                                                     : static_cast<pyccl::engine::OnLoss>(on_loss);
  request.algorithm = static_cast<pyccl::collectives::Algorithm>(algorithm);
  return take_quantization(given.quantization, request.quantization);
}

Status take_arrays(const pyccl_call& call, pyccl::engine::Request& request) {
  if (call.arrays == nullptr && call.array_count > 0) return invalid("arrays is NULL");
  for (size_t i = 0; i < call.array_count; ++i) {
    const pyccl_array& each = call.arrays[i];
    const std::string name = "array " + std::to_string(i);
    const int dtype = number_of(each.dtype);
    if (!within(dtype, PYCCL_DTYPE_COUNT)) {
      return invalid(name + " has unknown dtype " + std::to_string(dtype));
    }
    if ((each.input_count > 0 && each.input == nullptr) ||
        (each.output_count > 0 && each.output == nullptr)) {
      return invalid(name + " is NULL");
    }
    request.arrays.push_back(
        {static_cast<const std::byte*>(each.input), static_cast<std::byte*>(each.output),
         static_cast<pyccl::kernels::DataType>(dtype), each.input_count, each.output_count});
  }
  return {};
}

Status take_counts(const pyccl_call& call, pyccl::engine::Request& request) {
  request.world = call.world_size;
  if (call.world_size < 0) return invalid("world_size is below 0");
  if (call.counts == nullptr) {
    return call.receive_counts == nullptr ? Status() : invalid("receive_counts without counts");
  }
  if (call.world_size == 0) return invalid("counts need world_size");
  const std::vector<std::uint64_t> counts(call.counts, call.counts + call.world_size);
  if (request.kind != Kind::all_to_all) {
    if (call.receive_counts != nullptr) return invalid("receive_counts are for all_to_all");
    request.shares = counts;
    return {};
  }
  if (call.receive_counts == nullptr) return invalid("counts without receive_counts");
  request.send_shares = counts;
  request.receive_shares.assign(call.receive_counts, call.receive_counts + call.world_size);
  return {};
}

// Who takes part, and in which role.
Status take_members(const pyccl_communicator& handle, const pyccl_call& call, int collective,
                    Prepared& made) {
  const auto& subgroup = handle.subgroup;
  made.for_all = !subgroup && !is_pair(collective);
  if (!is_pair(collective)) {
    if (subgroup) subgroup->apply(made.request);
    if (has_root(made.request.kind)) made.request.root = call.rank;
    return {};
  }
  using pyccl::runtime::PairRole;
  const PairRole role = collective == PYCCL_SEND   ? PairRole::sender
                        : collective == PYCCL_RECV ? PairRole::receiver
                                                   : PairRole::partner;
  const auto& runtime = *handle.shared->communicator;
  return pyccl::runtime::ask_pair(made.request, runtime.view(), subgroup ? &*subgroup : nullptr,
                                  runtime.peer(), role, call.rank);
}

Result<Prepared> prepare(const pyccl_communicator& handle, const pyccl_call& call) {
  const int collective = number_of(call.collective);
  if (!within(collective, PYCCL_COLLECTIVE_COUNT)) {
    return invalid("unknown collective " + std::to_string(collective));
  }
  Prepared made;
  made.request.kind = collective == PYCCL_RECV ? Kind::send : static_cast<Kind>(collective);
  const std::string name(collective == PYCCL_RECV ? "recv"
                                                  : pyccl::collectives::name_of(made.request.kind));
  const pyccl_operation_options options =
      call.options != nullptr ? *call.options : pyccl_operation_options_default();
  for (const Status& status :
       {take_options(options, made), take_arrays(call, made.request),
        take_counts(call, made.request), take_members(handle, call, collective, made)}) {
    if (!status.ok()) return Status(status.code(), name + ": " + status.reason());
  }
  return made;
}

}  // namespace

extern "C" {

pyccl_operation_options pyccl_operation_options_default(void) {
  return {PYCCL_SUM,
          1.0,
          0,
          PYCCL_ON_LOSS_DEFAULT,
          PYCCL_ALGORITHM_AUTO,
          -1.0,
          pyccl_quantization_of(PYCCL_CODEC_NONE)};
}

pyccl_quantization pyccl_quantization_of(pyccl_codec codec) {
  constexpr std::uint32_t usual_block = 256;
  return {codec, usual_block, PYCCL_F32, PYCCL_F32, PYCCL_ROUNDING_NEAREST, 0, 0};
}

pyccl_code pyccl_run(pyccl_communicator* communicator, const pyccl_call* call,
                     pyccl_operation_info* info) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_run: communicator is NULL");
    if (call == nullptr) return refuse("pyccl_run: call is NULL");
    auto prepared = prepare(*communicator, *call);
    if (!prepared.ok()) return report(prepared.status());
    // Held over the wait, should another thread free the handle meanwhile.
    const auto shared = communicator->shared;
    Prepared made = prepared.take();
    const auto work = shared->communicator->call(std::move(made.request), made.timeout,
                                                 pyccl::runtime::Then::waits);
    pyccl::api::wait(*work);
    return pyccl::api::conclude(*shared, *work, made.for_all, info);
  });
}

pyccl_code pyccl_start(pyccl_communicator* communicator, const pyccl_call* call,
                       pyccl_work** work) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_start: communicator is NULL");
    if (call == nullptr) return refuse("pyccl_start: call is NULL");
    if (work == nullptr) return refuse("pyccl_start: work is NULL");
    auto prepared = prepare(*communicator, *call);
    if (!prepared.ok()) return report(prepared.status());
    Prepared made = prepared.take();
    // The handle first: nothing may fail once the operation uses the caller's memory.
    auto handle = std::make_unique<pyccl_work>();
    handle->shared = communicator->shared;
    handle->hint_taken = !made.for_all;
    handle->work = handle->shared->communicator->call(std::move(made.request), made.timeout);
    *work = handle.release();
    return PYCCL_OK;
  });
}

}  // extern "C"
