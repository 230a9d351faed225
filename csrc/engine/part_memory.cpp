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
  runs_.push_back({bytes_, size, array.input, array.output, false, no_work});
  bytes_ += size;
  in_place_ = in_place_ || runs_.back().overwrites();
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
  // A segment meets at most 8 arrays of this size or more, and 7 packed runs between them.
  static_assert(transport::pieces_max >= 15);
  pack(segment_bytes / 6);
  PYCCL_ASSERT(!too_scattered(segment_bytes));
}

// Makes one run of each sequence of arrays smaller than `small_bytes`.
void PartMemory::pack(std::uint64_t small_bytes) {
  std::vector<Run> runs;
  bool extends = false;
  for (const Run& run : runs_) {
    const bool small = run.size < small_bytes;
    if (small) {
      arrays_.push_back({packed_bytes_, run.size, run.input, run.output, false, no_work});
      packed_bytes_ += run.size;
    }
    if (small && extends) {
      runs.back().size += run.size;
    } else {
      runs.push_back(run);
      runs.back().packed = small;
    }
    extends = small;
  }
  runs_ = std::move(runs);
  in_place_ = std::ranges::any_of(runs_, &Run::overwrites);
}

// Not before the first attempt, so that a lack of memory is met in one place.
void PartMemory::take_packed() {
  if (packed_bytes_ == 0 || packed_.size() > 0) return;
  packed_ = pool_->take(packed_bytes_);
  std::uint64_t at = 0;
  for (Run& run : runs_) {
    if (!run.packed) continue;
    run.input = run.output = packed_.data() + at;
    at += run.size;
  }
}

void PartMemory::begin(bool uses_partial, Backup backup) {
  const bool snapshot = backup == Backup::snapshot;
  // Partial sums and snapshots need the work buffer for themselves.
  const bool work_for_all = uses_partial || snapshot;
  if (work_for_all || work_for_all_ || backup == Backup::none) restore();
  work_for_all_ = work_for_all;
  for (const ByteRange& range : overwritten_) stale_.add(range);
  overwritten_.clear();
  if (PYCCL_MUTANT("no-restore-on-retry")) stale_.clear();
  take_packed();
  // The caller's arrays are the backup of what is packed.
  for (const Run& array : arrays_) {
    std::memcpy(packed_.data() + array.begin, array.input, array.size);
  }
  divide_work(work_for_all, uses_partial || backup != Backup::none);
  keeps_overwritten_ = in_place_ && backup == Backup::ranges;
  snapshot_ = false;
  if (snapshot) {
    keep({0, bytes_});
    snapshot_ = true;
    overwritten_ = {{0, bytes_}};
  }
}

void PartMemory::divide_work(bool packed_too, bool overwritten_too) {
  std::uint64_t size = 0;
  for (Run& run : runs_) {
    run.work = no_work;
    if (!(run.overwrites() && overwritten_too) && !(run.packed && packed_too)) continue;
    run.work = size;
    size += run.size;
  }
  if (work_.size() >= size) return;
  pool_->give_back(std::move(work_));
  work_ = pool_->take(size);
}

void PartMemory::before_result(ByteRange range) {
  if (!keeps_overwritten_) return;
  settle(range);
  if (stale_.covers(range)) return;
  keep(range);
  overwritten_.push_back(range);
}

// Copies what the arrays hold in place to the work buffer.
void PartMemory::keep(ByteRange range) {
  // Backups of large operations are read only if something fails, so they should not cost cache.
  const bool large = bytes_ > cached_bytes_max;
  for_each_run(range,
               [&](const std::byte* input, std::byte* work, std::byte* output, std::size_t size) {
                 if (work == output) return;  // nothing to keep
                 if (large) {
                   kernels::copy_streaming(work, input, size);
                 } else {
                   std::memcpy(work, input, size);
                 }
               });
}

// Attempts divide the arrays differently. A range that is partly stale would have its input in
// pieces of both places; with the rest of it in the work buffer it has not.
void PartMemory::settle(ByteRange range) {
  if (stale_.covers(range) || !stale_.meets(range)) return;
  PYCCL_MARK("a segment that an earlier attempt has overwritten in part");
  stale_.for_each_gap(range, [this](ByteRange gap) { keep(gap); });
  stale_.add(range);
}

void PartMemory::restore() {
  for (const ByteRange& range : overwritten_) stale_.add(range);
  overwritten_.clear();
  snapshot_ = false;
  stale_.for_each([this](ByteRange range) {
    for_each_run(range, [](const std::byte*, std::byte* work, std::byte* output, std::size_t size) {
      if (work != output) std::memcpy(output, work, size);
    });
  });
  stale_.clear();
}

void PartMemory::publish() {
  for (const Run& array : arrays_) {
    std::memcpy(array.output, packed_.data() + array.begin, array.size);
  }
  overwritten_.clear();
  stale_.clear();
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

void PartMemory::input_pieces(ByteRange range, transport::Pieces& pieces) {
  settle(range);
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
