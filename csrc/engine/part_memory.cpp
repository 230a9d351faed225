// What is copied and when: before a final value lands in place, for a snapshot, for packing.
#include "engine/part_memory.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "kernels/copy.hpp"

namespace pyccl::engine {
namespace {

constexpr std::uint64_t cached_bytes_max = 4 << 20;

std::uint64_t gap_between(const Run& run, const Run& next) {
  return next.begin - (run.begin + run.size);
}

}  // namespace

void RunList::add(std::byte* memory, std::uint64_t size, bool joins) {
  if (size == 0) return;
  if (joins && granule_ == 1 && !runs_.empty() &&
      runs_.back().memory + runs_.back().size == memory) {
    runs_.back().size += size;
    return;
  }
  runs_.push_back({bytes(), size, memory});
}

std::size_t RunList::first(std::uint64_t offset) const {
  const auto after =
      std::upper_bound(runs_.begin(), runs_.end(), offset,
                       [](std::uint64_t value, const Run& run) { return value < run.begin; });
  return after == runs_.begin() ? 0 : static_cast<std::size_t>(after - runs_.begin()) - 1;
}

bool RunList::too_scattered(std::uint32_t segment_bytes) const {
  // A segment of a run list may begin and end in the middle of a run.
  std::size_t first = 0;
  for (std::size_t last = 0; last < runs_.size(); ++last) {
    while (runs_[first].begin + runs_[first].size + segment_bytes <= runs_[last].begin) ++first;
    if (last - first + 1 > transport::pieces_max) return true;
  }
  return false;
}

bool PartMemory::overwrites(std::size_t index) const {
  const Run& result = results_.runs()[index];
  return !result.packed && result.memory == inputs_.runs()[index].memory;
}

void PartMemory::lay_out(RunList inputs, RunList results, Overlap overlap,
                         std::uint32_t segment_bytes, bool pieces) {
  PYCCL_ASSERT(overwritten_.empty() && stale_.empty());
  release();
  laid_out_ = true;
  inputs_ = std::move(inputs);
  results_ = std::move(results);
  paired_ = overlap == Overlap::paired;
  arrays_.clear();
  packed_bytes_ = 0;
  // A segment meets at most 8 arrays of this size or more, and 7 packed runs between them.
  static_assert(transport::pieces_max >= 15);
  const std::uint64_t small = segment_bytes / 6;
  const auto below = [&](const RunList& list) {
    return pieces && list.too_scattered(segment_bytes) ? small : 0;
  };
  const std::uint64_t inputs_below = below(inputs_);
  std::uint64_t results_below = below(results_);
  if (overlap == Overlap::deferred) results_below = ~std::uint64_t{0};
  if (paired_) {
    // One copy for both: the arrays themselves are the backup of what is packed.
    note_packed(inputs_, results_, inputs_below);
  } else {
    note_packed(inputs_, RunList(), inputs_below);
    note_packed(RunList(), results_, results_below);
  }
  inputs_ = pack(inputs_, inputs_below);
  results_ = pack(results_, results_below);
  in_place_ = false;
  for (std::size_t i = 0; paired_ && i < results_.runs().size(); ++i) {
    in_place_ = in_place_ || overwrites(i);
  }
}

// Where the arrays smaller than `small_bytes` go in the packed copy; of the two lists one may be
// empty, else they pair.
void PartMemory::note_packed(const RunList& inputs, const RunList& results,
                             std::uint64_t small_bytes) {
  const RunList& list = inputs.runs().empty() ? results : inputs;
  for (std::size_t i = 0; i < list.runs().size(); ++i) {
    const std::uint64_t size = list.runs()[i].size;
    if (size >= small_bytes) continue;
    if (i > 0 && list.runs()[i - 1].size < small_bytes) {
      packed_bytes_ += gap_between(list.runs()[i - 1], list.runs()[i]);
    }
    Packed array{packed_bytes_, size, nullptr, nullptr};
    if (!inputs.runs().empty()) array.input = inputs.runs()[i].memory;
    if (!results.runs().empty()) array.result = results.runs()[i].memory;
    arrays_.push_back(array);
    packed_bytes_ += size;
  }
}

// Makes one run of each sequence of arrays smaller than `small_bytes`.
RunList PartMemory::pack(const RunList& list, std::uint64_t small_bytes) {
  RunList packed = list;
  packed.runs().clear();
  bool extends = false;
  for (const Run& run : list.runs()) {
    const bool small = run.size < small_bytes;
    if (small && extends) {
      Run& last = packed.runs().back();
      last.size += gap_between(last, run) + run.size;
    } else {
      packed.runs().push_back(run);
      packed.runs().back().packed = small;
    }
    extends = small;
  }
  return packed;
}

// Not before an attempt, so that a lack of memory is met in one place.
void PartMemory::take_packed() {
  if (packed_bytes_ == 0 || packed_.size() > 0) return;
  packed_ = pool_->take(packed_bytes_);
  std::byte* at = packed_.data();
  const auto place = [&at](Run& run) {
    if (!run.packed) return;
    run.memory = at;
    at += run.size;
  };
  if (!paired_) std::ranges::for_each(inputs_.runs(), place);
  std::ranges::for_each(results_.runs(), place);
  if (!paired_) return;
  for (std::size_t i = 0; i < results_.runs().size(); ++i) {
    if (results_.runs()[i].packed) inputs_.runs()[i].memory = results_.runs()[i].memory;
  }
}

void PartMemory::begin(const Demand& demand) {
  // Partial sums and snapshots need the work buffer for themselves.
  const auto plain = [](const Demand& each) {
    return each.partial_bytes == 0 && !each.partial_in_result && !each.snapshot && each.keeps;
  };
  if (!plain(demand) || !plain(demand_)) restore();
  demand_ = demand;
  for (const ByteRange& range : overwritten_) stale_.add(range);
  overwritten_.clear();
  if (PYCCL_MUTANT("no-restore-on-retry")) stale_.clear();
  take_packed();
  for (const Packed& array : arrays_) {
    if (array.input == nullptr) continue;
    std::memcpy(packed_.data() + array.begin, array.input, array.size);
  }
  divide_work(demand);
  snapshot_ = false;
  if (demand.snapshot && paired_) {
    keep({0, results_.bytes()});
    snapshot_ = true;
    overwritten_ = {{0, results_.bytes()}};
  }
}

void PartMemory::divide_work(const Demand& demand) {
  const bool packed_too = demand.partial_in_result || demand.snapshot;
  std::uint64_t size = 0;
  for (std::size_t i = 0; paired_ && i < results_.runs().size(); ++i) {
    Run& run = results_.runs()[i];
    const bool wanted = run.packed ? packed_too : overwrites(i) && (demand.keeps || packed_too);
    run.work = wanted ? size : Run::no_work;
    if (wanted) size += run.size;
  }
  partial_at_ = size;
  if (!demand.partial_in_result) size += demand.partial_bytes;
  if (work_.size() >= size) return;
  PYCCL_ASSERT(stale_.empty());
  pool_->give_back(std::move(work_));
  work_ = pool_->take(size);
}

void PartMemory::before_result(ByteRange range) {
  if (!in_place_ || !demand_.keeps || snapshot_) return;
  settle(range);
  if (stale_.covers(range)) return;
  keep(range);
  overwritten_.push_back(range);
}

// Copies what the arrays hold in place to the work buffer.
void PartMemory::keep(ByteRange range) {
  results_.for_each(range, [&](const Run& run, std::uint64_t offset, std::size_t size) {
    if (run.work == Run::no_work) return;
    copy_for_later(work_.data() + run.work + offset, run.memory + offset, size);
  });
}

void PartMemory::copy_for_later(std::byte* to, const std::byte* from, std::size_t size) const {
  if (results_.bytes() > cached_bytes_max) {
    kernels::copy_streaming(to, from, size);
  } else {
    std::memcpy(to, from, size);
  }
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
    results_.for_each(range, [&](const Run& run, std::uint64_t offset, std::size_t size) {
      if (run.work == Run::no_work) return;
      std::memcpy(run.memory + offset, work_.data() + run.work + offset, size);
    });
  });
  stale_.clear();
}

void PartMemory::publish() {
  for (const Packed& array : arrays_) {
    if (array.result == nullptr) continue;
    std::memcpy(array.result, packed_.data() + array.begin, array.size);
  }
  overwritten_.clear();
  stale_.clear();
}

void PartMemory::release() {
  pool_->give_back(std::move(work_));
  pool_->give_back(std::move(packed_));
}

void PartMemory::input_pieces(ByteRange range, transport::Pieces& pieces) {
  visit_input(range, [&](const std::byte* memory, std::uint64_t, std::size_t size, auto) {
    pieces.push({memory, size});
  });
}

void PartMemory::partial_pieces(ByteRange range, transport::MutablePieces& pieces) const {
  if (!demand_.partial_in_result) {
    pieces.push({work_.data() + partial_at_ + range.begin, range.size()});
    return;
  }
  results_.for_each(range, [&](const Run& run, std::uint64_t offset, std::size_t size) {
    const bool apart = run.work != Run::no_work;
    std::byte* from = apart ? work_.data() + run.work + offset : run.memory + offset;
    pieces.push({from, size});
  });
}

void PartMemory::result_pieces(ByteRange range, transport::MutablePieces& pieces) const {
  visit_result(range, [&](std::byte* memory, std::uint64_t, std::size_t size, auto) {
    pieces.push({memory, size});
  });
}

}  // namespace pyccl::engine
