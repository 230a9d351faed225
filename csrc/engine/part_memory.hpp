// The memory of one part of an operation: its arrays of one data type, seen as the three buffers of
// a plan (collectives/plan.hpp), in bytes.
//
// Contract C4 asks that inputs survive a failure, and a retry needs them. So:
//   apart     the result is scratch until the end; the input is never written.
//   in place  where results replace the input (all-reduce and its kin), a work buffer holds partial
//             sums first and then, range by range, what a final value has overwritten; the array
//             itself sees final values only. The next attempt reads what an earlier one has
//             overwritten from there, so a retry copies nothing back.
//   packed    neighbours too small for pieces of a segment, and results that would overwrite an
//             input that is still needed: the operation runs on a packed copy, and the arrays are
//             written only when it has been committed.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "base/memory.hpp"
#include "engine/byte_ranges.hpp"
#include "kernels/kernels.hpp"
#include "transport/connection.hpp"

namespace pyccl::engine {

// Bytes [begin, begin + size) of a buffer lie at `memory`.
struct Run {
  std::uint64_t begin = 0;
  std::uint64_t size = 0;
  std::byte* memory = nullptr;
  bool packed = false;
  std::uint64_t work = no_work;  // where its place in the work buffer begins, in this attempt

  static constexpr std::uint64_t no_work = ~std::uint64_t{0};
};

// The runs of a buffer in the order of its coordinates. `granule`: each begins at a multiple of so
// many bytes, and the buffer ends at one; between them there is no memory.
class RunList {
 public:
  explicit RunList(std::uint64_t granule = 1) : granule_(granule) {}
  // Behind what is there. `joins`: one run with the one before, if they touch and need not be told
  // apart.
  void add(std::byte* memory, std::uint64_t size, bool joins);
  std::uint64_t bytes() const { return runs_.empty() ? 0 : rounded_up(runs_.back()); }
  std::vector<Run>& runs() { return runs_; }
  const std::vector<Run>& runs() const { return runs_; }
  bool too_scattered(std::uint32_t segment_bytes) const;

  // Calls visit(run, offset within it, bytes) for each run that `range` meets.
  template <class Visit>
  void for_each(ByteRange range, Visit visit) const {
    for (std::size_t i = first(range.begin); i < runs_.size(); ++i) {
      const Run& run = runs_[i];
      if (run.begin >= range.end) break;
      const std::uint64_t from = std::max(range.begin, run.begin);
      const std::uint64_t upto = std::min(range.end, run.begin + run.size);
      if (from < upto) visit(run, from - run.begin, static_cast<std::size_t>(upto - from));
    }
  }

 private:
  std::uint64_t rounded_up(const Run& run) const {
    return (run.begin + run.size + granule_ - 1) / granule_ * granule_;
  }
  std::size_t first(std::uint64_t offset) const;

  std::uint64_t granule_;
  std::vector<Run> runs_;
};

// How results meet inputs in memory.
enum class Overlap {
  none,     // not at all, or only where they hold the same: the own share in the whole
  paired,   // input and result have the same coordinates, and memory in common only as a whole run
  deferred  // somehow: results are written when the operation has been committed
};

// What a plan asks of the memory, by an attempt.
struct Demand {
  std::uint64_t partial_bytes = 0;
  bool partial_in_result = false;
  bool snapshot = false;  // the input is needed after results have overwritten it
  bool keeps = true;      // what results overwrite may have to be given back
};

class PartMemory {
 public:
  PartMemory(kernels::DataType dtype, MemoryPool& pool) : dtype_(dtype), pool_(&pool) {}
  ~PartMemory() { release(); }
  PartMemory(PartMemory&&) = default;

  // Which arrays there are. Again for an attempt that divides them otherwise, unless paired.
  // `pieces`: segments will be asked for as pieces, so that a segment must not have too many.
  void lay_out(RunList inputs, RunList results, Overlap overlap, std::uint32_t segment_bytes,
               bool pieces = true);
  bool laid_out() const { return laid_out_; }
  bool in_place() const { return in_place_; }  // some array is overwritten by results

  // Begins an attempt: the input is what the caller gave. All memory of the attempt is taken here,
  // before anything is sent; std::bad_alloc leaves the arrays as they were, or restore() does.
  void begin(const Demand& demand);
  // Puts back all that was overwritten. Idempotent.
  void restore();
  // The result is final: packed arrays are written.
  void publish();
  void release();

  kernels::DataType dtype() const { return dtype_; }
  std::uint64_t work_bytes() const { return work_.size() + packed_.size(); }

  // To be called before a final value is written to `range` of the result for the first time.
  void before_result(ByteRange range);

  // As memcpy, of what nobody looks at before the operation ends: of a large one it should not cost
  // any cache.
  void copy_for_later(std::byte* to, const std::byte* from, std::size_t size) const;

  // Calls visit(memory, offset within the range, bytes, offset within the run) for each run that a
  // range meets.
  template <class Visit>
  void visit_input(ByteRange range, Visit visit) {
    if (!paired_) {
      inputs_.for_each(range, [&](const Run& run, std::uint64_t offset, std::size_t size) {
        visit(run.memory + offset, run.begin + offset - range.begin, size, offset);
      });
      return;
    }
    settle(range);
    const bool kept = snapshot_ || stale_.covers(range);
    results_.for_each(range, [&](const Run& run, std::uint64_t offset, std::size_t size) {
      const auto index = static_cast<std::size_t>(&run - results_.runs().data());
      const bool copied = kept && run.work != Run::no_work;
      const std::byte* from =
          copied ? work_.data() + run.work + offset : inputs_.runs()[index].memory + offset;
      visit(from, run.begin + offset - range.begin, size, offset);
    });
  }
  template <class Visit>
  void visit_result(ByteRange range, Visit visit) const {
    results_.for_each(range, [&](const Run& run, std::uint64_t offset, std::size_t size) {
      visit(run.memory + offset, run.begin + offset - range.begin, size, offset);
    });
  }

  // What memory a range has, which gaps don't.
  std::uint64_t bytes_in(ByteRange range, bool input) const {
    std::uint64_t bytes = 0;
    const auto add = [&](const Run&, std::uint64_t, std::size_t size) { bytes += size; };
    (input && !paired_ ? inputs_ : results_).for_each(range, add);
    return bytes;
  }

  // Where a range lies; several runs if the part is a list of arrays, pieces_max at most. What lies
  // in place of a result is to be asked for after its before_result().
  void input_pieces(ByteRange range, transport::Pieces& pieces);
  void partial_pieces(ByteRange range, transport::MutablePieces& pieces) const;
  void result_pieces(ByteRange range, transport::MutablePieces& pieces) const;

 private:
  struct Packed {
    std::uint64_t begin = 0;  // within the packed copy
    std::uint64_t size = 0;
    const std::byte* input = nullptr;  // the caller's; nullptr: a result only
    std::byte* result = nullptr;       // nullptr: an input only
  };

  bool overwrites(std::size_t index) const;
  static RunList pack(const RunList& list, std::uint64_t small_bytes);
  void note_packed(const RunList& inputs, const RunList& results, std::uint64_t small_bytes);
  void take_packed();
  void divide_work(const Demand& demand);
  void keep(ByteRange range);
  void settle(ByteRange range);

  kernels::DataType dtype_;
  MemoryPool* pool_;
  RunList inputs_;
  RunList results_;  // paired: run for run those of the inputs
  bool laid_out_ = false;
  bool paired_ = false;
  bool in_place_ = false;
  Demand demand_;
  bool snapshot_ = false;
  std::vector<Packed> arrays_;
  std::uint64_t packed_bytes_ = 0;
  LargeBuffer packed_;
  LargeBuffer work_;
  std::uint64_t partial_at_ = 0;        // in work_, where it is no part of the result
  std::vector<ByteRange> overwritten_;  // in this attempt; kept in work_
  ByteRanges stale_;                    // in earlier ones, or as good as that; kept in work_
};

}  // namespace pyccl::engine
