// See plain_data.hpp.
#include "engine/plain_data.hpp"

#include <algorithm>
#include <array>

#include "engine/zip.hpp"

namespace pyccl::engine {

using collectives::Range;
using collectives::Source;

void PlainData::begin(PartMemory& memory, kernels::ReduceOp op, double weight,
                      std::uint64_t element_bytes) {
  memory_ = &memory;
  op_ = op;
  weight_ = weight;
  element_bytes_ = element_bytes;
}

ByteRange PlainData::bytes_of(Range range) const {
  return {range.begin * element_bytes_, range.end * element_bytes_};
}

void PlainData::outgoing(Source source, Range range, transport::Pieces& pieces) {
  const ByteRange bytes = bytes_of(range);
  const bool scaled = source == Source::weighted_input && weight_ != 1.0;
  if (collectives::reads_input(source) && !scaled) return memory_->input_pieces(bytes, pieces);
  // The begin of a chain of sums: nothing else needs this range of the partial sums.
  if (scaled) scale_input(bytes);
  transport::MutablePieces memory;
  if (source == Source::result) {
    memory_->result_pieces(bytes, memory);
  } else {
    memory_->partial_pieces(bytes, memory);
  }
  for (const MutableByteView piece : memory.view()) pieces.push(piece);
}

void PlainData::arriving(Range range, bool first, transport::MutablePieces& target) {
  if (first) memory_->before_result(bytes_of(range));
  memory_->result_pieces(bytes_of(range), target);
}

void PlainData::fold(const FoldSegment& segment) {
  const auto& contributions = segment.contributions;
  sources_.clear();
  weights_.clear();
  std::size_t own = contributions.size();
  for (const Contribution& each : contributions) {
    if (each.staged == nullptr) own = sources_.size();
    sources_.push_back(each.staged);
    weights_.push_back(each.weight);
  }
  if (std::ranges::all_of(weights_, [](double weight) { return weight == 1.0; })) weights_.clear();
  const bool final = segment.fold->final;
  const ByteRange bytes = bytes_of(segment.range);
  transport::MutablePieces target;
  if (final) {
    memory_->before_result(bytes);
    memory_->result_pieces(bytes, target);
  } else {
    memory_->partial_pieces(bytes, target);
  }
  const kernels::DataType dtype = memory_->dtype();
  const std::size_t number_bytes = kernels::size_of(dtype);
  const auto fold = kernels::best_target().fold[static_cast<int>(dtype)][static_cast<int>(op_)];
  const auto run = [&](const std::byte* own_data, std::byte* to, std::size_t size) {
    if (own < sources_.size()) sources_[own] = own_data;
    fold({to, sources_, weights_, segment.divisor, size / number_bytes});
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      if (i != own) sources_[i] += size;
    }
  };
  if (own == sources_.size()) {
    for (const MutableByteView to : target.view()) run(nullptr, to.data(), to.size());
    return;
  }
  transport::Pieces own_pieces;
  find_own(*segment.fold, bytes_of(segment.own()), own_pieces);
  zip(own_pieces.view(), target.view(), run);
}

void PlainData::find_own(const collectives::Fold& fold, ByteRange range,
                         transport::Pieces& pieces) {
  if (fold.own != Source::partial) return memory_->input_pieces(range, pieces);
  transport::MutablePieces memory;
  memory_->partial_pieces(range, memory);
  for (const MutableByteView piece : memory.view()) pieces.push(piece);
}

void PlainData::scale_input(ByteRange range) {
  const kernels::DataType dtype = memory_->dtype();
  const auto fold = kernels::best_target()
                        .fold[static_cast<int>(dtype)][static_cast<int>(kernels::ReduceOp::sum)];
  const std::array<double, 1> weights{weight_};
  transport::Pieces inputs;
  transport::MutablePieces targets;
  memory_->input_pieces(range, inputs);
  memory_->partial_pieces(range, targets);
  zip(inputs.view(), targets.view(), [&](const std::byte* from, std::byte* to, std::size_t size) {
    const std::array<const std::byte*, 1> sources{from};
    fold({to, sources, weights, 1.0, size / kernels::size_of(dtype)});
  });
}

void PlainData::copy(Range from, std::uint64_t begin) {
  transport::Pieces inputs;
  transport::MutablePieces targets;
  memory_->input_pieces(bytes_of(from), inputs);
  memory_->result_pieces(bytes_of({begin, begin + from.size()}), targets);
  zip(inputs.view(), targets.view(), [this](const std::byte* own, std::byte* to, std::size_t size) {
    if (to != own) memory_->copy_for_later(to, own, size);
  });
}

}  // namespace pyccl::engine
