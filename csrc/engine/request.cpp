// What a request must satisfy before anything is sent.
#include "engine/request.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>

namespace pyccl::engine {
namespace {

struct Interval {
  std::uintptr_t begin;
  std::uintptr_t end;
  std::size_t array;
  bool written;
};

// Any two arrays that share memory of which one is written, apart from an array in place.
Status check_overlap(const std::vector<Array>& arrays) {
  std::vector<Interval> intervals;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    const Array& array = arrays[i];
    const std::size_t bytes = array.count * kernels::size_of(array.dtype);
    if (bytes == 0) continue;
    const auto output = reinterpret_cast<std::uintptr_t>(array.output);
    const auto input = reinterpret_cast<std::uintptr_t>(array.input);
    intervals.push_back({output, output + bytes, i, true});
    if (input != output) intervals.push_back({input, input + bytes, i, false});
  }
  std::ranges::sort(intervals, {}, &Interval::begin);
  std::uintptr_t written_upto = 0, read_upto = 0;
  std::size_t written_by = 0, read_by = 0;
  for (const Interval& next : intervals) {
    if (next.begin < written_upto || (next.written && next.begin < read_upto)) {
      const std::size_t other = next.begin < written_upto ? written_by : read_by;
      return Status(Code::invalid_argument, "array " + std::to_string(std::min(other, next.array)) +
                                                " and array " +
                                                std::to_string(std::max(other, next.array)) +
                                                " share memory that the operation would write");
    }
    std::uintptr_t& upto = next.written ? written_upto : read_upto;
    if (next.end > upto) {
      upto = next.end;
      (next.written ? written_by : read_by) = next.array;
    }
  }
  return {};
}

}  // namespace

Status check(const AllReduceRequest& request) {
  if (!std::isfinite(request.weight) || request.weight < 0.0) {
    return Status(Code::invalid_argument, "weight must be a finite number >= 0");
  }
  if (request.algorithm < PYCCL_ALGORITHM_AUTO || request.algorithm > PYCCL_ALGORITHM_ONE_SHOT) {
    return Status(Code::invalid_argument, "unknown algorithm");
  }
  const bool scales = request.op == kernels::ReduceOp::sum || request.op == kernels::ReduceOp::avg;
  const bool plain_weight = request.weight == 0.0 || request.weight == 1.0;
  for (std::size_t i = 0; i < request.arrays.size(); ++i) {
    const Array& array = request.arrays[i];
    const std::string name = "array " + std::to_string(i);
    const Status pair = kernels::check_pair(array.dtype, request.op);
    if (!pair.ok()) return Status(pair.code(), name + ": " + pair.reason());
    if (array.count > 0 && (array.input == nullptr || array.output == nullptr)) {
      return Status(Code::invalid_argument, name + " has no memory");
    }
    if (array.count > (std::uint64_t{1} << 56) / kernels::size_of(array.dtype)) {
      return Status(Code::invalid_argument, name + " is larger than any memory");
    }
    if (!plain_weight && (!scales || !kernels::is_floating(array.dtype))) {
      return Status(Code::invalid_argument,
                    name + ": weights other than 0 and 1 need op sum or avg and a floating type");
    }
  }
  return check_overlap(request.arrays);
}

}  // namespace pyccl::engine
