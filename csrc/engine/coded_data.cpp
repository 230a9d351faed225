// See coded_data.hpp.
#include "engine/coded_data.hpp"

#include <algorithm>
#include <array>

#include "base/assert.hpp"
#include "base/mark.hpp"

namespace pyccl::engine {

using collectives::Range;
using collectives::Source;
using kernels::DataType;

CodedData::Sizes CodedData::sizes_of(const Quantization& quantization, DataType dtype) {
  const std::uint64_t block = quantization.format.block;
  return {block * kernels::size_of(dtype), kernels::block_bytes(quantization.format),
          block * kernels::size_of(quantization.partial)};
}

CodedData::CodedData(const Quantization& quantization, double weight, PartMemory& memory,
                     Extent extent, MemoryPool& pool, kernels::Zstd& zstd, bool compresses)
    : quantization_(quantization),
      weight_(weight),
      memory_(memory),
      pool_(pool),
      sizes_(sizes_of(quantization, memory.dtype())),
      extent_(extent),
      inputs_(pool.take(extent.inputs * sizes_.coded)),
      results_(pool.take(extent.results * sizes_.coded)),
      scratch_(pool.take(2 * extent.segment * quantization.format.block * sizeof(float))),
      encoded_(extent.inputs),
      zstd_(zstd),
      packer_(zstd) {
  sum_ = reinterpret_cast<float*>(scratch_.data());
  next_ = sum_ + extent.segment * quantization.format.block;
  zstd.prepare();
  if (!compresses) return;
  packed_inputs_.emplace(extent.inputs, sizes_.coded, pool);
  packed_results_.emplace(extent.results, sizes_.coded, pool);
}

CodedData::~CodedData() {
  pool_.give_back(std::move(inputs_));
  pool_.give_back(std::move(results_));
  pool_.give_back(std::move(scratch_));
}

ByteRange CodedData::memory_of(Range range) const {
  return {range.begin * sizes_.memory, range.end * sizes_.memory};
}

std::size_t CodedData::numbers(Range range) const {
  return range.size() * quantization_.format.block;
}

std::byte* CodedData::input_blocks(Range range) {
  return inputs_.data() + range.begin * sizes_.coded;
}

std::byte* CodedData::result_blocks(Range range) {
  return results_.data() + range.begin * sizes_.coded;
}

void CodedData::outgoing(Source source, Range range, transport::Pieces& pieces) {
  // Partial sums that are sent have the coordinates of the result.
  plain_bytes_ += memory_.bytes_in(memory_of(range), collectives::reads_input(source));
  const auto packed = [this](std::optional<PackedBlocks>& memory, std::uint64_t first,
                             ByteView blocks) {
    return memory ? memory->get(first, blocks, packer_) : blocks;
  };
  const auto bytes = static_cast<std::size_t>(range.size() * sizes_.coded);
  switch (source) {
    case Source::input:
      encode_input(range);
      return pieces.push(packed(packed_inputs_, range.begin, {input_blocks(range), bytes}));
    case Source::result:
      return pieces.push(packed(packed_results_, range.begin, {result_blocks(range), bytes}));
    case Source::weighted_input: begin_partial(range); break;
    case Source::partial:
    case Source::credit: break;
  }
  transport::MutablePieces memory;
  memory_.partial_pieces({range.begin * sizes_.partial, range.end * sizes_.partial}, memory);
  for (const MutableByteView piece : memory.view()) pieces.push(piece);
}

// What has been sent once may still be on its way, so nothing is written twice.
void CodedData::encode_input(Range range) {
  for (std::uint64_t begin = range.begin; begin < range.end;) {
    std::uint64_t end = begin;
    while (end < range.end && encoded_[end] == encoded_[begin]) ++end;
    const Range part{begin, end};
    begin = end;
    if (encoded_[part.begin]) continue;
    encode_input_to(input_blocks(part), part);
    for (std::uint64_t i = part.begin; i < part.end; ++i) encoded_[i] = true;
  }
}

void CodedData::encode_input_to(std::byte* blocks, Range range) {
  const DataType dtype = memory_.dtype();
  const auto encode = [&](const std::byte* from, std::uint64_t offset, std::size_t bytes,
                          std::uint64_t place) {
    note(kernels::encode({.source = from,
                          .dtype = dtype,
                          .count = bytes / kernels::size_of(dtype),
                          .destination = blocks + coded(offset),
                          .format = quantization_.format,
                          .rounding = rounding(quantization_.seed, place)}));
  };
  memory_.visit_input(memory_of(range), encode);
}

void CodedData::arriving(Range range, bool, transport::MutablePieces& target) {
  target.push({result_blocks(range), range.size() * sizes_.coded});
}

void CodedData::arrived(Range range) {
  if (!extent_.held) decode_into_result(result_blocks(range), range);
}

bool CodedData::publish(std::uint64_t bytes) {
  if (!extent_.held) return false;
  const std::uint64_t count = std::max<std::uint64_t>(bytes / sizes_.memory, 1);
  const Range next{published_, std::min(published_ + count, extent_.results)};
  decode_into_result(result_blocks(next), next);
  published_ = next.end;
  return published_ < extent_.results;
}

void CodedData::decode_into_result(const std::byte* blocks, Range range) {
  const DataType dtype = memory_.dtype();
  memory_.before_result(memory_of(range));
  const auto decode = [&](std::byte* to, std::uint64_t offset, std::size_t bytes, std::uint64_t) {
    note(kernels::decode({.source = blocks + coded(offset),
                          .format = quantization_.format,
                          .count = bytes / kernels::size_of(dtype),
                          .destination = to,
                          .dtype = dtype}));
  };
  memory_.visit_result(memory_of(range), decode);
}

void CodedData::copy(Range from, std::uint64_t begin) {
  encode_input(from);
  decode_into_result(input_blocks(from), {begin, begin + from.size()});
}

void CodedData::fold(const FoldSegment& segment) {
  bool first = true;
  for (const Contribution& each : segment.contributions) {
    if (!segment.fold->plain) {
      add_numbers(each, segment, first);
    } else if (each.staged != nullptr) {
      add_coded(each.staged, segment, each.weight, first);
    } else {
      // Nobody else gets these blocks, so they need not outlive the cache.
      auto* blocks = reinterpret_cast<std::byte*>(next_);
      encode_input_to(blocks, segment.own());
      add_coded(blocks, segment, each.weight, first);
    }
    first = false;
  }
  divide(segment);
  finish(segment);
}

void CodedData::add_coded(const std::byte* blocks, const FoldSegment& segment, double weight,
                          bool first) {
  note(kernels::accumulate({.source = blocks,
                            .format = quantization_.format,
                            .count = numbers(segment.range),
                            .sum = sum_,
                            .weight = static_cast<float>(weight),
                            .first = first}));
}

// Of a chain of sums: what came has its weights already, the own input has not.
void CodedData::add_numbers(const Contribution& each, const FoldSegment& segment, bool first) {
  const std::size_t count = numbers(segment.range);
  float* to = first ? sum_ : next_;
  if (each.staged != nullptr) {
    kernels::widen(each.staged, quantization_.partial, count, to);
  } else {
    PYCCL_ASSERT(segment.fold->own == Source::input);
    widen_input(segment.own(), to);
  }
  const auto* sum = reinterpret_cast<const std::byte*>(sum_);
  const std::array sources{sum, reinterpret_cast<const std::byte*>(next_)};
  const std::array weights{first ? each.weight : 1.0, each.weight};
  const std::size_t terms = first ? 1 : 2;
  kernels::best_target().fold[PYCCL_F32][PYCCL_SUM]({reinterpret_cast<std::byte*>(sum_),
                                                     std::span(sources).first(terms),
                                                     std::span(weights).first(terms), 1.0, count});
}

void CodedData::begin_partial(Range range) {
  const std::size_t count = numbers(range);
  widen_input(range, sum_);
  auto* sum = reinterpret_cast<std::byte*>(sum_);
  const std::array<const std::byte*, 1> sources{sum};
  const std::array weights{weight_};
  kernels::best_target().fold[PYCCL_F32][PYCCL_SUM]({sum, sources, weights, 1.0, count});
  transport::MutablePieces memory;
  memory_.partial_pieces({range.begin * sizes_.partial, range.end * sizes_.partial}, memory);
  kernels::narrow(sum_, count, memory.view().front().data(), quantization_.partial);
}

// Behind the end of an array its last block is filled up with zeros.
void CodedData::widen_input(Range range, float* numbers) {
  const DataType dtype = memory_.dtype();
  const std::size_t size = kernels::size_of(dtype);
  std::size_t filled = 0;
  const auto fill_to = [&](std::size_t place) {
    std::fill(numbers + filled, numbers + place, 0.0f);
    filled = place;
  };
  const auto widen = [&](const std::byte* from, std::uint64_t offset, std::size_t bytes,
                         std::uint64_t) {
    fill_to(offset / size);
    kernels::widen(from, dtype, bytes / size, numbers + filled);
    filled += bytes / size;
  };
  memory_.visit_input(memory_of(range), widen);
  fill_to(this->numbers(range));
}

void CodedData::divide(const FoldSegment& segment) {
  if (segment.divisor == 1.0) return;
  auto* sum = reinterpret_cast<std::byte*>(sum_);
  const std::array<const std::byte*, 1> sources{sum};
  kernels::best_target().fold[PYCCL_F32][PYCCL_AVG](
      {sum, sources, {}, segment.divisor, numbers(segment.range)});
}

void CodedData::finish(const FoldSegment& segment) {
  const Range range = segment.range;
  if (!segment.fold->final) {
    transport::MutablePieces memory;
    memory_.partial_pieces({range.begin * sizes_.partial, range.end * sizes_.partial}, memory);
    kernels::narrow(sum_, numbers(range), memory.view().front().data(), quantization_.partial);
    return;
  }
  const DataType dtype = memory_.dtype();
  const std::size_t size = kernels::size_of(dtype);
  memory_.before_result(memory_of(range));
  const auto write = [&](std::byte* to, std::uint64_t offset, std::size_t bytes,
                         std::uint64_t place) {
    const float* from = sum_ + offset / size;
    if (!segment.sent) {
      PYCCL_ASSERT(!extent_.held);
      return kernels::narrow(from, bytes / size, to, dtype);
    }
    PYCCL_MARK("a quantized result");
    note(kernels::encode({.source = reinterpret_cast<const std::byte*>(from),
                          .count = bytes / size,
                          .destination = result_blocks(range) + coded(offset),
                          .format = quantization_.format,
                          .rounding = rounding(quantization_.seed ^ result_salt, place),
                          .rounded = extent_.held ? nullptr : to,
                          .rounded_dtype = dtype}));
    if (!extent_.held && PYCCL_MUTANT("owner-keeps-its-sum")) {
      kernels::narrow(from, bytes / size, to, dtype);
    }
  };
  memory_.visit_result(memory_of(range), write);
}

}  // namespace pyccl::engine
