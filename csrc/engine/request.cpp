// What a request must satisfy before anything is sent.
#include "engine/request.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include "engine/layout.hpp"

namespace pyccl::engine {
namespace {

using collectives::Kind;

struct Interval {
  std::uintptr_t begin;
  std::uintptr_t end;
  std::size_t array;
  bool written;
};

// Where results replace the input, the two are one or have nothing in common; elsewhere an array's
// input may overlap its own output anyhow (layout.cpp sees to it).
bool same_places(Kind kind) {
  return kind == Kind::all_reduce || kind == Kind::reduce || kind == Kind::broadcast;
}

std::vector<Interval> memory_of(const Request& request) {
  std::vector<Interval> intervals;
  for (std::size_t i = 0; i < request.arrays.size(); ++i) {
    const Array& array = request.arrays[i];
    const std::size_t size = kernels::size_of(array.dtype);
    const auto output = reinterpret_cast<std::uintptr_t>(array.output);
    const auto input = reinterpret_cast<std::uintptr_t>(array.input);
    const bool replaces = input == output && same_places(request.kind);
    const std::size_t written = array.output_count * size;
    const bool scattered = !request.input_pieces.empty();
    const std::size_t read = scattered ? 0 : array.input_count * size;
    if (written > 0) intervals.push_back({output, output + written, i, true});
    if (read > 0 && !(replaces && written > 0))
      intervals.push_back({input, input + read, i, false});
  }
  for (const ByteView piece : request.input_pieces) {
    const auto begin = reinterpret_cast<std::uintptr_t>(piece.data());
    // An array of its own: no part of it may be written.
    intervals.push_back({begin, begin + piece.size(), request.arrays.size(), false});
  }
  return intervals;
}

Status check_overlap(const Request& request) {
  std::vector<Interval> intervals = memory_of(request);
  std::ranges::sort(intervals, {}, &Interval::begin);
  std::vector<Interval> open;  // those that reach beyond the present one's begin
  for (const Interval& next : intervals) {
    std::erase_if(open, [&](const Interval& each) { return each.end <= next.begin; });
    for (const Interval& other : open) {
      if (!next.written && !other.written) continue;
      if (next.array == other.array && !same_places(request.kind)) continue;
      const auto [first, second] = std::minmax(next.array, other.array);
      return Status(Code::invalid_argument, "array " + std::to_string(first) + " and array " +
                                                std::to_string(second) +
                                                " share memory that the operation would write");
    }
    open.push_back(next);
  }
  return {};
}

Status check_weight(const Request& request) {
  if (!std::isfinite(request.weight) || request.weight < 0.0) {
    return Status(Code::invalid_argument, "weight must be a finite number >= 0");
  }
  const bool scales = request.op == kernels::ReduceOp::sum || request.op == kernels::ReduceOp::avg;
  if (request.weight == 0.0 || request.weight == 1.0) return {};
  for (std::size_t i = 0; i < request.arrays.size(); ++i) {
    if (scales && kernels::is_floating(request.arrays[i].dtype)) continue;
    return Status(Code::invalid_argument,
                  "array " + std::to_string(i) +
                      ": weights other than 0 and 1 need op sum or avg and a floating type");
  }
  return {};
}

Status check_arrays(const Request& request) {
  for (std::size_t i = 0; i < request.arrays.size(); ++i) {
    const Array& array = request.arrays[i];
    const std::string name = "array " + std::to_string(i);
    if (reduces(request.kind)) {
      const Status pair = kernels::check_pair(array.dtype, request.op);
      if (!pair.ok()) return Status(pair.code(), name + ": " + pair.reason());
    }
    const bool scattered = !request.input_pieces.empty();
    if ((array.input_count > 0 && array.input == nullptr && !scattered) ||
        (array.output_count > 0 && array.output == nullptr)) {
      return Status(Code::invalid_argument, name + " has no memory");
    }
    const std::uint64_t most = (std::uint64_t{1} << 56) / kernels::size_of(array.dtype);
    if (array.input_count > most || array.output_count > most) {
      return Status(Code::invalid_argument, name + " is larger than any memory");
    }
  }
  return {};
}

Status check_shares(const Request& request) {
  const Kind kind = request.kind;
  const bool gathers = kind == Kind::all_gather || kind == Kind::gather ||
                       kind == Kind::reduce_scatter || kind == Kind::scatter;
  const bool uneven = !request.send_shares.empty() || !request.receive_shares.empty();
  if ((!request.shares.empty() && !gathers) || (uneven && kind != Kind::all_to_all)) {
    return Status(Code::invalid_argument,
                  std::string(collectives::name_of(kind)) + " takes no counts by rank");
  }
  if ((!request.shares.empty() || uneven) && request.arrays.size() != 1) {
    return Status(Code::invalid_argument, "counts by rank are for a single array, not for a list");
  }
  std::uint64_t scattered = 0;
  for (const ByteView piece : request.input_pieces) scattered += piece.size();
  const bool whole = !uneven || request.arrays.empty() ||
                     scattered == request.arrays.front().input_count *
                                      kernels::size_of(request.arrays.front().dtype);
  if (!request.input_pieces.empty() && (!uneven || !whole)) {
    return Status(Code::invalid_argument,
                  "an input in pieces is for counts by rank, and has the size of all pieces");
  }
  if ((request.packable && !uneven) ||
      (!request.input_widths.empty() &&
       request.input_widths.size() != request.input_pieces.size())) {
    return Status(Code::invalid_argument, "what is compressed is moved in pieces of known widths");
  }
  for (const auto* shares : {&request.shares, &request.send_shares, &request.receive_shares}) {
    for (const std::uint64_t share : *shares) {
      // So far from wrapping round that no sum of them does.
      if (share > std::uint64_t{1} << 48) {
        return Status(Code::invalid_argument, "a count is larger than any memory");
      }
    }
  }
  if (cut_by_rank(request) && request.on_loss == OnLoss::retry) {
    return Status(Code::invalid_argument,
                  std::string(collectives::name_of(kind)) +
                      " can't begin again without a lost member, since its arrays are cut by rank: "
                      "on_loss must be raise");
  }
  return {};
}

// A chain or tree of sums would send no block that could be shorter.
bool quantizes_by(Kind kind, collectives::Algorithm algorithm) {
  using collectives::Algorithm;
  if (algorithm == Algorithm::automatic || !reduces(kind)) return true;
  return algorithm == Algorithm::direct ||
         (kind == Kind::all_reduce && algorithm == Algorithm::ring);
}

Status check_quantization(const Request& request) {
  const Quantization& quantization = request.quantization;
  if (!quantization.on()) return {};
  const auto refuse = [](const std::string& why) { return Status(Code::invalid_argument, why); };
  const Kind kind = request.kind;
  const std::string name(collectives::name_of(kind));
  if (kind != Kind::all_reduce && kind != Kind::reduce_scatter && kind != Kind::all_gather &&
      kind != Kind::broadcast && kind != Kind::exchange) {
    return refuse(name + " can't be quantized");
  }
  if (const Status format = kernels::check(quantization.format); !format.ok()) return format;
  if (quantization.partial != kernels::DataType::f32 &&
      quantization.partial != kernels::DataType::bf16) {
    return refuse("partial sums travel in f32 or bf16");
  }
  const bool adds = request.op == kernels::ReduceOp::sum || request.op == kernels::ReduceOp::avg;
  if (reduces(kind) && !adds) {
    return refuse(std::string(kernels::name_of(request.op)) +
                  " can't be quantized, only sum and avg");
  }
  if (!quantizes_by(kind, request.algorithm)) {
    return refuse(name + " by " + std::string(collectives::name_of(request.algorithm)) +
                  " can't be quantized, only by direct" +
                  (kind == Kind::all_reduce ? " or ring" : ""));
  }
  const double weight = request.weight;
  const bool representable =
      weight >= std::numeric_limits<float>::min() && weight <= std::numeric_limits<float>::max();
  if (reduces(kind) && weight != 0.0 && !representable) {
    return refuse("a weight of " + std::to_string(weight) +
                  " can't be quantized with, for sums are in f32");
  }
  for (std::size_t i = 0; i < request.arrays.size(); ++i) {
    const kernels::DataType dtype = request.arrays[i].dtype;
    if (kernels::is_floating(dtype)) continue;
    return refuse("array " + std::to_string(i) + " is of " + std::string(kernels::name_of(dtype)) +
                  ", but only floating point can be quantized");
  }
  return {};
}

}  // namespace

collectives::Algorithm algorithm_of(const Request& request) {
  const bool open = request.algorithm == collectives::Algorithm::automatic;
  if (!open || !request.quantization.on() || !reduces(request.kind)) return request.algorithm;
  return collectives::Algorithm::direct;
}

OnLoss usual_on_loss(Kind kind) {
  const bool retries = kind == Kind::all_reduce || kind == Kind::reduce ||
                       kind == Kind::broadcast || kind == Kind::barrier;
  return retries ? OnLoss::retry : OnLoss::raise;
}

Status check(const Request& request) {
  if (!collectives::offers(request.kind, request.algorithm)) {
    return Status(Code::invalid_argument, std::string(collectives::name_of(request.kind)) +
                                              " has no algorithm " +
                                              std::string(collectives::name_of(request.algorithm)) +
                                              ", only " + collectives::algorithms_of(request.kind));
  }
  for (const Status& status : {check_weight(request), check_arrays(request), check_shares(request),
                               check_quantization(request)}) {
    if (!status.ok()) return status;
  }
  return check_overlap(request);
}

}  // namespace pyccl::engine
