// What a caller asks for and what it gets, in terms of memory and numbers only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "kernels/kernels.hpp"

namespace pyccl::engine {

enum class OnLoss : std::uint8_t { retry = PYCCL_ON_LOSS_RETRY, raise = PYCCL_ON_LOSS_RAISE };

// One array of an operation; contiguous, any alignment. output == input: in place. Otherwise the
// two don't overlap, and no output overlaps any other array of the operation.
struct Array {
  const std::byte* input = nullptr;
  std::byte* output = nullptr;
  kernels::DataType dtype = kernels::DataType::f32;
  std::uint64_t count = 0;  // elements
};

// The arrays are one operation with one outcome. Their memory belongs to it until it has ended.
struct AllReduceRequest {
  std::vector<Array> arrays;
  kernels::ReduceOp op = kernels::ReduceOp::sum;
  double weight = 1.0;  // >= 0; sum and avg multiply by it, 0 takes part without contributing
  std::uint32_t tag = 0;
  OnLoss on_loss = OnLoss::retry;
  pyccl_algorithm algorithm = PYCCL_ALGORITHM_AUTO;
  Time deadline = never;
};

struct OperationInfo {
  std::int32_t world_size = 0;  // contributors: members with a weight above 0
  std::int32_t members = 0;     // of the group in the view that committed it
  Epoch epoch;
  std::uint32_t attempts = 0;
  std::uint64_t bytes_sent = 0;  // payload of the last attempt
  std::uint64_t bytes_received = 0;
  double weight_sum = 0.0;
  double seconds = 0.0;  // from the call to its end
  std::string algorithm;
  bool peers_pending = false;  // the same on all members after the same operation
};

// Ok, or why the request can't be: refused pair of type and op, weight, overlap, too many arrays of
// different types.
Status check(const AllReduceRequest&);

}  // namespace pyccl::engine
