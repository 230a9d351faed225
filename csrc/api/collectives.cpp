// The functions for one array or one kind: each fills in a pyccl_call. How much memory the caller
// has given follows from the share of one rank, what kind it is and which rank this is.
#include <cstring>
#include <numeric>
#include <utility>

#include "api/handles.hpp"

using pyccl::api::guarded;
using pyccl::api::refuse;

namespace {

// What all of them have in common.
struct Basics {
  pyccl_communicator* communicator;
  pyccl_collective collective;
  const void* input;
  void* output;
  const pyccl_dtype& dtype;
  const pyccl_operation_options* options;
  pyccl_operation_info* info;
  int32_t rank = 0;  // of the root or of the other side
};

struct Place {
  std::int32_t rank;
  std::int32_t world_size;
};

// At present: where this peer has none any more, the engine says why.
Place place_of(const pyccl_communicator& handle) {
  if (handle.subgroup) {
    return {handle.subgroup->rank, static_cast<std::int32_t>(handle.subgroup->members.size())};
  }
  const auto view = handle.shared->communicator->view();
  return {view.rank, static_cast<std::int32_t>(view.peers.size())};
}

pyccl_code run(const Basics& basics, std::uint64_t input_count, std::uint64_t output_count,
               pyccl_call call = {}) {
  pyccl_array array{basics.input, basics.output, input_count, output_count, PYCCL_F32};
  // As bits: the number may be out of range, which is judged further in.
  std::memcpy(&array.dtype, &basics.dtype, sizeof array.dtype);
  call.collective = basics.collective;
  call.arrays = &array;
  call.array_count = 1;
  call.rank = basics.rank;
  call.options = basics.options;
  return pyccl_run(basics.communicator, &call, basics.info);
}

enum class Reads { share, whole };

// A collective whose input or output has a share for each rank. `rooted`: only the root's whole.
pyccl_code run_shares(const Basics& basics, Reads reads, bool rooted, std::uint64_t count,
                      int32_t world_size, const std::uint64_t* counts) {
  return guarded([&]() -> pyccl_code {
    if (basics.communicator == nullptr) return refuse("communicator is NULL");
    if (world_size < 1) return refuse("world_size is below 1");
    const std::int32_t self = place_of(*basics.communicator).rank;
    std::uint64_t share = count;
    std::uint64_t whole = 0;
    if (counts != nullptr) {
      share = self >= 0 && self < world_size ? counts[self] : 0;
      whole = std::accumulate(counts, counts + world_size, std::uint64_t{0});
    } else if (__builtin_mul_overflow(count, static_cast<std::uint64_t>(world_size), &whole)) {
      return refuse("count is larger than any memory");
    }
    pyccl_call call{};
    call.world_size = world_size;
    call.counts = counts;
    if (rooted && self != basics.rank) whole = 0;
    return reads == Reads::whole ? run(basics, whole, share, call)
                                 : run(basics, share, whole, call);
  });
}

pyccl_call call_of(const pyccl_array* arrays, size_t array_count,
                   const pyccl_operation_options* options) {
  pyccl_call call{};
  call.collective = PYCCL_ALL_REDUCE;
  call.arrays = arrays;
  call.array_count = array_count;
  call.options = options;
  return call;
}

}  // namespace

extern "C" {

pyccl_code pyccl_all_reduce(pyccl_communicator* communicator, const void* input, void* output,
                            uint64_t count, pyccl_dtype dtype,
                            const pyccl_operation_options* options, pyccl_operation_info* info) {
  return run({communicator, PYCCL_ALL_REDUCE, input, output, dtype, options, info}, count, count);
}

pyccl_code pyccl_all_reduce_list(pyccl_communicator* communicator, const pyccl_array* arrays,
                                 size_t array_count, const pyccl_operation_options* options,
                                 pyccl_operation_info* info) {
  const pyccl_call call = call_of(arrays, array_count, options);
  return pyccl_run(communicator, &call, info);
}

pyccl_code pyccl_all_reduce_async(pyccl_communicator* communicator, const pyccl_array* arrays,
                                  size_t array_count, const pyccl_operation_options* options,
                                  pyccl_work** work) {
  const pyccl_call call = call_of(arrays, array_count, options);
  return pyccl_start(communicator, &call, work);
}

pyccl_code pyccl_reduce(pyccl_communicator* communicator, const void* input, void* output,
                        uint64_t count, pyccl_dtype dtype, int32_t root,
                        const pyccl_operation_options* options, pyccl_operation_info* info) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_reduce: communicator is NULL");
    const Place place = place_of(*communicator);
    pyccl_call call{};
    call.world_size = place.world_size;
    return run({communicator, PYCCL_REDUCE, input, output, dtype, options, info, root}, count,
               place.rank == root ? count : 0, call);
  });
}

pyccl_code pyccl_broadcast(pyccl_communicator* communicator, void* data, uint64_t count,
                           pyccl_dtype dtype, int32_t root, const pyccl_operation_options* options,
                           pyccl_operation_info* info) {
  return guarded([&]() -> pyccl_code {
    if (communicator == nullptr) return refuse("pyccl_broadcast: communicator is NULL");
    pyccl_call call{};
    call.world_size = place_of(*communicator).world_size;
    return run({communicator, PYCCL_BROADCAST, data, data, dtype, options, info, root}, count,
               count, call);
  });
}

pyccl_code pyccl_all_gather(pyccl_communicator* communicator, const void* input, void* output,
                            uint64_t count, int32_t world_size, pyccl_dtype dtype,
                            const pyccl_operation_options* options, pyccl_operation_info* info) {
  return run_shares({communicator, PYCCL_ALL_GATHER, input, output, dtype, options, info},
                    Reads::share, false, count, world_size, nullptr);
}

pyccl_code pyccl_all_gather_v(pyccl_communicator* communicator, const void* input, void* output,
                              const uint64_t* counts, int32_t world_size, pyccl_dtype dtype,
                              const pyccl_operation_options* options, pyccl_operation_info* info) {
  if (counts == nullptr) return refuse("pyccl_all_gather_v: counts is NULL");
  return run_shares({communicator, PYCCL_ALL_GATHER, input, output, dtype, options, info},
                    Reads::share, false, 0, world_size, counts);
}

pyccl_code pyccl_gather(pyccl_communicator* communicator, const void* input, void* output,
                        uint64_t count, int32_t world_size, pyccl_dtype dtype, int32_t root,
                        const pyccl_operation_options* options, pyccl_operation_info* info) {
  return run_shares({communicator, PYCCL_GATHER, input, output, dtype, options, info, root},
                    Reads::share, true, count, world_size, nullptr);
}

pyccl_code pyccl_reduce_scatter(pyccl_communicator* communicator, const void* input, void* output,
                                uint64_t count, int32_t world_size, pyccl_dtype dtype,
                                const pyccl_operation_options* options,
                                pyccl_operation_info* info) {
  return run_shares({communicator, PYCCL_REDUCE_SCATTER, input, output, dtype, options, info},
                    Reads::whole, false, count, world_size, nullptr);
}

pyccl_code pyccl_reduce_scatter_v(pyccl_communicator* communicator, const void* input, void* output,
                                  const uint64_t* counts, int32_t world_size, pyccl_dtype dtype,
                                  const pyccl_operation_options* options,
                                  pyccl_operation_info* info) {
  if (counts == nullptr) return refuse("pyccl_reduce_scatter_v: counts is NULL");
  return run_shares({communicator, PYCCL_REDUCE_SCATTER, input, output, dtype, options, info},
                    Reads::whole, false, 0, world_size, counts);
}

pyccl_code pyccl_scatter(pyccl_communicator* communicator, const void* input, void* output,
                         uint64_t count, int32_t world_size, pyccl_dtype dtype, int32_t root,
                         const pyccl_operation_options* options, pyccl_operation_info* info) {
  return run_shares({communicator, PYCCL_SCATTER, input, output, dtype, options, info, root},
                    Reads::whole, true, count, world_size, nullptr);
}

pyccl_code pyccl_all_to_all(pyccl_communicator* communicator, const void* input, void* output,
                            uint64_t count, int32_t world_size, pyccl_dtype dtype,
                            const pyccl_operation_options* options, pyccl_operation_info* info) {
  std::uint64_t whole = 0;
  if (world_size < 1) return refuse("pyccl_all_to_all: world_size is below 1");
  if (__builtin_mul_overflow(count, static_cast<std::uint64_t>(world_size), &whole)) {
    return refuse("pyccl_all_to_all: count is larger than any memory");
  }
  pyccl_call call{};
  call.world_size = world_size;
  return run({communicator, PYCCL_ALL_TO_ALL, input, output, dtype, options, info}, whole, whole,
             call);
}

pyccl_code pyccl_all_to_all_v(pyccl_communicator* communicator, const void* input,
                              const uint64_t* send_counts, void* output,
                              const uint64_t* receive_counts, int32_t world_size, pyccl_dtype dtype,
                              const pyccl_operation_options* options, pyccl_operation_info* info) {
  if (world_size < 1) return refuse("pyccl_all_to_all_v: world_size is below 1");
  if (send_counts == nullptr || receive_counts == nullptr) {
    return refuse("pyccl_all_to_all_v: counts are NULL");
  }
  pyccl_call call{};
  call.world_size = world_size;
  call.counts = send_counts;
  call.receive_counts = receive_counts;
  return run({communicator, PYCCL_ALL_TO_ALL, input, output, dtype, options, info},
             std::accumulate(send_counts, send_counts + world_size, std::uint64_t{0}),
             std::accumulate(receive_counts, receive_counts + world_size, std::uint64_t{0}), call);
}

pyccl_code pyccl_send(pyccl_communicator* communicator, const void* data, uint64_t count,
                      pyccl_dtype dtype, int32_t to, const pyccl_operation_options* options,
                      pyccl_operation_info* info) {
  return run({communicator, PYCCL_SEND, data, nullptr, dtype, options, info, to}, count, 0);
}

pyccl_code pyccl_recv(pyccl_communicator* communicator, void* data, uint64_t count,
                      pyccl_dtype dtype, int32_t from, const pyccl_operation_options* options,
                      pyccl_operation_info* info) {
  return run({communicator, PYCCL_RECV, nullptr, data, dtype, options, info, from}, 0, count);
}

pyccl_code pyccl_exchange(pyccl_communicator* communicator, const void* input, void* output,
                          uint64_t count, pyccl_dtype dtype, int32_t peer,
                          const pyccl_operation_options* options, pyccl_operation_info* info) {
  return run({communicator, PYCCL_EXCHANGE, input, output, dtype, options, info, peer}, count,
             count);
}

pyccl_code pyccl_barrier(pyccl_communicator* communicator, uint32_t tag, double timeout) {
  pyccl_operation_options options = pyccl_operation_options_default();
  options.tag = tag;
  options.timeout = timeout;
  pyccl_call call{};
  call.collective = PYCCL_BARRIER;
  call.options = &options;
  return pyccl_run(communicator, &call, nullptr);
}

}  // extern "C"
