// What is copied and when: before a final value lands in place, for a snapshot, for packing.
#include "engine/part_memory.hpp"

#include <algorithm>
#include <cstring>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "kernels/copy.hpp"

namespace pyccl::engine {
namespace {

constexpr std::uint64_t cached_bytes_max = 4 << 20;

}  // namespace

void PartMemory::add(const Array& array) {
  const std::uint64_t size = array.count * kernels::size_of(dtype_);
  if (size == 0) return;
  runs_.push_back({bytes_, size, array.input, array.output});
  bytes_ += size;
  in_place_ = in_place_ || array.input == array.output;
}

bool PartMemory::too_scattered(std::uint32_t segment_bytes) const {
  // A segment of a run list may begin and end in the middle of a run.
  std::size_t first = 0;
  for (std::size_t last = 0; last < runs_.size(); ++last) {
    while (runs_[first].begin + runs_[first].size + segment_bytes <= runs_[last].begin) ++first;
    if (last - first + 1 > transport::pieces_max) return true;
  }
  return false;
}

void PartMemory::seal(std::uint32_t segment_bytes) {
  if (!too_scattered(segment_bytes)) return;
  arrays_ = std::move(runs_);
  packed_ = pool_->take(bytes_);
  runs_ = {{0, bytes_, packed_.data(), packed_.data()}};
  in_place_ = true;
}

void PartMemory::begin(bool uses_partial, bool snapshot) {
  if (!PYCCL_MUTANT("no-restore-on-retry")) restore();
  for (const Run& array : arrays_) {
    std::memcpy(packed_.data() + array.begin, array.input, array.size);
  }
  // The caller's arrays are the backup of a packed operation.
  keeps_overwritten_ = in_place_ && arrays_.empty() && !snapshot;
  const bool needs_work = keeps_overwritten_ || (in_place_ && (snapshot || uses_partial));
  if (needs_work && work_.size() < bytes_) {
    pool_->give_back(std::move(work_));
    work_ = pool_->take(bytes_);
  }
  snapshot_ = false;
  if (snapshot && in_place_) {
    for_each_run({0, bytes_}, [&](const std::byte* input, std::byte* copy, std::byte*,
                                  std::size_t size) { std::memcpy(copy, input, size); });
    snapshot_ = true;
    if (arrays_.empty()) overwritten_ = {{0, bytes_}};
  }
}

void PartMemory::before_result(ByteRange range) {
  if (!keeps_overwritten_) return;
  // Backups of large operations are read only if something fails, so they should not cost cache.
  const bool large = bytes_ > cached_bytes_max;
  for_each_run(range, [&](const std::byte* input, std::byte* work, std::byte*, std::size_t size) {
    if (large) {
      kernels::copy_streaming(work, input, size);
    } else {
      std::memcpy(work, input, size);
    }
  });
  overwritten_.push_back(range);
}

void PartMemory::restore() {
  for (const ByteRange& range : overwritten_) {
    for_each_run(range, [](const std::byte*, std::byte* work, std::byte* output, std::size_t size) {
      std::memcpy(output, work, size);
    });
  }
  overwritten_.clear();
}

void PartMemory::publish() {
  for (const Run& array : arrays_) {
    std::memcpy(array.output, packed_.data() + array.begin, array.size);
  }
  overwritten_.clear();
}

void PartMemory::release() {
  pool_->give_back(std::move(work_));
  pool_->give_back(std::move(packed_));
}

std::size_t PartMemory::first_run(std::uint64_t offset) const {
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), offset,
                       [](std::uint64_t value, const Run& run) { return value < run.begin; });
  return after == runs_.begin() ? 0 : static_cast<std::size_t>(after - runs_.begin()) - 1;
}

void PartMemory::input_pieces(ByteRange range, transport::Pieces& pieces) const {
  for_each_run(range, [&](const std::byte* input, std::byte*, std::byte*, std::size_t size) {
    pieces.push({input, size});
  });
}

void PartMemory::partial_pieces(ByteRange range, transport::Pieces& pieces) const {
  for_each_run(range, [&](const std::byte*, std::byte* partial, std::byte*, std::size_t size) {
    pieces.push({partial, size});
  });
}

void PartMemory::result_pieces(ByteRange range, transport::MutablePieces& pieces) const {
  for_each_run(range, [&](const std::byte*, std::byte*, std::byte* result, std::size_t size) {
    pieces.push({result, size});
  });
}

}  // namespace pyccl::engine
