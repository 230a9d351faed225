// The memory of one part of an operation: all its arrays of one data type, seen as one run of
// bytes.
//
// Contract C4 asks that inputs survive a failure, and a retry needs them. So:
//   out of place  the output is scratch until the end; the input is never written.
//   in place      a work buffer holds partial sums first and then, range by range, what a final
//                 value has overwritten; the array itself sees final values only. The next attempt
//                 reads what an earlier one has overwritten from there, so a retry copies nothing
//                 back.
//   packed        neighbours too small for pieces of a segment: the operation runs in place on a
//                 packed copy, and the arrays are written only when it has been committed.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.hpp"
#include "base/memory.hpp"
#include "engine/byte_ranges.hpp"
#include "engine/request.hpp"
#include "kernels/kernels.hpp"
#include "transport/connection.hpp"

namespace pyccl::engine {

// What keeps the input while results overwrite it in place.
enum class Backup {
  none,      // the result is the input
  ranges,    // each range just before its result
  snapshot,  // all of it at once: the plan may overwrite the input while it is still being sent
};

class PartMemory {
 public:
  PartMemory(kernels::DataType dtype, MemoryPool& pool) : dtype_(dtype), pool_(&pool) {}
  ~PartMemory() { release(); }
  PartMemory(PartMemory&&) = default;

  void add(const Array& array);
  // After the last add(): packs what is scattered too much.
  void seal(std::uint32_t segment_bytes);

  // Begins an attempt: the input is what the caller gave. All memory of the attempt is taken here,
  // before anything is sent; std::bad_alloc leaves the arrays as they were, or restore() does.
  void begin(bool uses_partial, Backup backup);
  // Puts back all that was overwritten. Idempotent.
  void restore();
  // The result is final: packed arrays are written.
  void publish();
  void release();

  kernels::DataType dtype() const { return dtype_; }
  std::uint64_t count() const { return bytes_ / kernels::size_of(dtype_); }
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t work_bytes() const { return work_.size() + packed_.size(); }

  // To be called before a final value is written to `range` for the first time.
  void before_result(ByteRange range);

  // Where a range lies; several runs if the part is a list of arrays, pieces_max at most.
  void input_pieces(ByteRange range, transport::Pieces& pieces);
  void partial_pieces(ByteRange range, transport::Pieces& pieces) const;
  void result_pieces(ByteRange range, transport::MutablePieces& pieces) const;

  // Calls visit(input, partial, result, bytes) for each contiguous run of `range`, for whose result
  // before_result() was called if it is to be written.
  template <class Visit>
  void for_each_run(ByteRange range, Visit visit) const {
    const bool kept = snapshot_ || stale_.covers(range);
    for (std::size_t i = first_run(range.begin); i < runs_.size(); ++i) {
      const Run& run = runs_[i];
      if (run.begin >= range.end) break;
      const std::uint64_t from = std::max(range.begin, run.begin);
      const std::uint64_t upto = std::min(range.end, run.begin + run.size);
      if (from == upto) continue;
      std::byte* output = run.output + (from - run.begin);
      const bool has_work = run.work != no_work;
      std::byte* partial = has_work ? work_.data() + run.work + (from - run.begin) : output;
      const bool copied = kept && has_work;
      const std::byte* input = copied ? partial : run.input + (from - run.begin);
      visit(input, partial, output, static_cast<std::size_t>(upto - from));
    }
  }

 private:
  static constexpr std::uint64_t no_work = ~std::uint64_t{0};
  struct Run {
    std::uint64_t begin = 0;
    std::uint64_t size = 0;
    const std::byte* input = nullptr;
    std::byte* output = nullptr;
    bool packed = false;
    std::uint64_t work = no_work;  // where its place in the work buffer begins, in this attempt
    bool overwrites() const { return input == output && !packed; }
  };

  std::size_t first_run(std::uint64_t offset) const;
  bool too_scattered(std::uint32_t segment_bytes) const;
  void pack(std::uint64_t small_bytes);
  void take_packed();
  void divide_work(bool packed_too, bool overwritten_too);
  void keep(ByteRange range);
  void settle(ByteRange range);

  kernels::DataType dtype_;
  MemoryPool* pool_;
  std::uint64_t bytes_ = 0;
  std::vector<Run> runs_;    // what the plan works on
  std::vector<Run> arrays_;  // the caller's that are packed; begin: within the packed copy
  bool in_place_ = false;    // some array is overwritten by results
  bool work_for_all_ = false;
  bool keeps_overwritten_ = false;
  bool snapshot_ = false;
  std::uint64_t packed_bytes_ = 0;
  LargeBuffer packed_;
  LargeBuffer work_;
  std::vector<ByteRange> overwritten_;  // in this attempt; kept in work_
  ByteRanges stale_;                    // in earlier ones, or as good as that; kept in work_
};

}  // namespace pyccl::engine
