// pyccl_shared_state and pyccl_sync.
#include <algorithm>
#include <utility>
#include <vector>

#include "api/handles.hpp"
#include "kernels/kernels.hpp"
#include "pyccl_state.h"
#include "runtime/shared_state.hpp"

using pyccl::Code;
using pyccl::Result;
using pyccl::Status;
using pyccl::api::guarded;
using pyccl::api::number_of;
using pyccl::api::refuse;
using pyccl::api::report;

struct pyccl_shared_state {
  // const functions wait for its lock, too.
  mutable pyccl::runtime::SharedState state;
};

namespace {

Result<pyccl::engine::Tensor> tensor_from(const pyccl_tensor& given) {
  if (given.name == nullptr) return Status(Code::invalid_argument, "a tensor has no name");
  const int dtype = number_of(given.dtype);
  const std::string name = std::string("tensor '") + given.name + "'";
  if (dtype < 0 || dtype >= PYCCL_DTYPE_COUNT) {
    return Status(Code::invalid_argument, name + " has no such dtype: " + std::to_string(dtype));
  }
  if (given.dimensions > 0 && given.shape == nullptr) {
    return Status(Code::invalid_argument, name + " has no shape");
  }
  const auto type = static_cast<pyccl::kernels::DataType>(dtype);
  pyccl::engine::Tensor tensor;
  tensor.name = given.name;
  tensor.dtype = pyccl::kernels::name_of(type);
  tensor.memory = static_cast<std::byte*>(given.data);
  tensor.shape.assign(given.shape, given.shape + given.dimensions);
  tensor.bytes = pyccl::kernels::size_of(type);
  const bool empty = std::ranges::find(tensor.shape, std::uint64_t{0}) != tensor.shape.end();
  for (const std::uint64_t dimension : tensor.shape) {
    if (!empty && __builtin_mul_overflow(tensor.bytes, dimension, &tensor.bytes)) {
      return Status(Code::invalid_argument, name + " is larger than any memory");
    }
  }
  if (empty) tensor.bytes = 0;
  return tensor;
}

Result<pyccl::engine::SyncOptions> options_from(const pyccl_sync_options& given) {
  const int strategy = number_of(given.strategy);
  if (strategy < 0 || strategy >= PYCCL_STRATEGY_COUNT) {
    return Status(Code::invalid_argument, "there is no strategy " + std::to_string(strategy));
  }
  pyccl::engine::SyncOptions options;
  options.strategy = static_cast<pyccl::protocol::Strategy>(strategy);
  return options;
}

void fill(pyccl_sync_info& out, const pyccl::engine::SyncInfo& info) {
  out = {};
  out.revision = info.revision;
  to_string(info.digest).copy(out.digest, sizeof out.digest - 1);
  out.bytes_sent = info.bytes_sent;
  out.bytes_received = info.bytes_received;
  out.blocks_fetched = info.blocks_fetched;
  out.bytes_fetched = info.bytes_fetched;
  out.attempts = info.attempts;
  out.behind = static_cast<std::uint32_t>(info.behind.size());
  out.refuted = static_cast<std::uint32_t>(info.refuted.size());
  out.peers_pending = info.peers_pending ? 1 : 0;
  out.seconds = info.seconds;
}

}  // namespace

extern "C" {

pyccl_code pyccl_shared_state_create(const pyccl_tensor* tensors, size_t tensor_count,
                                     uint64_t revision, int expect_next,
                                     pyccl_shared_state** state) {
  return guarded([&]() -> pyccl_code {
    if (state == nullptr) return refuse("pyccl_shared_state_create: state is NULL");
    if (tensors == nullptr && tensor_count > 0) {
      return refuse("pyccl_shared_state_create: tensors is NULL");
    }
    std::vector<pyccl::engine::Tensor> described;
    for (std::size_t i = 0; i < tensor_count; ++i) {
      auto tensor = tensor_from(tensors[i]);
      if (!tensor.ok()) return report(tensor.status());
      described.push_back(tensor.take());
    }
    auto made = pyccl::engine::SharedState::make(std::move(described), expect_next != 0);
    if (!made.ok()) return report(made.status());
    made.value().set_revision(revision);
    *state = new pyccl_shared_state{pyccl::runtime::SharedState(made.take())};
    return PYCCL_OK;
  });
}

void pyccl_shared_state_free(pyccl_shared_state* state) { delete state; }

uint64_t pyccl_shared_state_revision(const pyccl_shared_state* state) {
  return state == nullptr ? 0 : state->state.revision();
}

pyccl_code pyccl_shared_state_set_revision(pyccl_shared_state* state, uint64_t revision) {
  if (state == nullptr) return refuse("pyccl_shared_state_set_revision: state is NULL");
  return guarded([&] { return report(state->state.set_revision(revision)); });
}

pyccl_code pyccl_shared_state_digest(pyccl_shared_state* state, char digest[33]) {
  return guarded([&]() -> pyccl_code {
    if (state == nullptr) return refuse("pyccl_shared_state_digest: state is NULL");
    if (digest == nullptr) return refuse("pyccl_shared_state_digest: digest is NULL");
    const auto read = state->state.digest();
    if (!read.ok()) return report(read.status());
    const std::string text = to_string(read.value());
    digest[text.copy(digest, 32)] = '\0';
    return PYCCL_OK;
  });
}

int pyccl_shared_state_is_void(const pyccl_shared_state* state) {
  return state != nullptr && !state->state.whole() ? 1 : 0;
}

pyccl_sync_options pyccl_sync_options_default(void) {
  return {PYCCL_POPULAR, -1.0, nullptr, nullptr};
}

pyccl_code pyccl_sync(pyccl_communicator* communicator, pyccl_shared_state* state,
                      const pyccl_sync_options* options, pyccl_sync_info* info) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_sync: communicator is NULL");
    if (state == nullptr) return refuse("pyccl_sync: state is NULL");
    if (communicator->subgroup) return refuse("pyccl_sync: a subgroup has no state of its own");
    const pyccl_sync_options given = options != nullptr ? *options : pyccl_sync_options_default();
    const auto meant = options_from(given);
    if (!meant.ok()) return report(meant.status());
    const auto limit = pyccl::api::timeout_of(given.timeout, PYCCL_OPERATION_TIMEOUT);
    if (!limit.ok()) return report(limit.status());
    pyccl::runtime::SharedState::Watch watch;
    if (given.progress != nullptr) {
      watch = [&](std::uint64_t moved, std::uint64_t to_move) {
        return given.progress(given.progress_context, moved, to_move) == 0;
      };
    }
    auto& shared = *communicator->shared;
    pyccl::engine::SyncInfo went;
    const Status status =
        state->state.sync(*shared.communicator, meant.value(), limit.value(), watch, went);
    if (!status.ok()) return report(status);
    shared.peers_pending.store(went.peers_pending, std::memory_order_relaxed);
    if (info != nullptr) fill(*info, went);
    return PYCCL_OK;
  });
}

pyccl_code pyccl_sync_behind(const pyccl_shared_state* state, uint32_t index,
                             pyccl_behind* behind) {
  return guarded([&]() -> pyccl_code {
    if (state == nullptr) return refuse("pyccl_sync_behind: state is NULL");
    if (behind == nullptr) return refuse("pyccl_sync_behind: behind is NULL");
    const pyccl::engine::SyncInfo info = state->state.last_sync();
    if (index >= info.behind.size()) return refuse("pyccl_sync_behind: there is no such member");
    const auto& each = info.behind[index];
    const auto rank = std::ranges::find(info.peers, each.peer) - info.peers.begin();
    behind->peer = each.peer.value;
    behind->rank = rank < std::ssize(info.peers) ? static_cast<std::int32_t>(rank) : -1;
    behind->drifted = each.drifted ? 1 : 0;
    behind->revision = each.revision;
    return PYCCL_OK;
  });
}

}  // extern "C"
