// What leaves: which segment may go next to a rank, and the memory that it is read from. And what
// only changes its place.
#include <algorithm>

#include "base/assert.hpp"
#include "engine/part_run.hpp"

namespace pyccl::engine {

using collectives::Range;
using collectives::Source;

bool PartRun::has_segment(Rank to) const {
  const auto index = static_cast<std::size_t>(to);
  const Lane& lane = lanes_[index];
  if (lane.taken < lane.ready.size()) return true;
  // In the order of the plan: a block that must wait holds back those behind it.
  const auto& inputs = program_->inputs[index];
  return lane.done < inputs.size() && open_[inputs[lane.done]] != 0;
}

bool PartRun::next_segment(Rank to, transport::SegmentHeader& header, transport::Pieces& pieces) {
  if (!has_segment(to)) return false;
  Lane& lane = lanes_[static_cast<std::size_t>(to)];
  Ready next;
  if (lane.taken < lane.ready.size()) {
    // What was made here goes first: somebody waits for it.
    next = lane.ready[lane.taken++];
    if (lane.taken == lane.ready.size()) {
      lane.ready.clear();
      lane.taken = 0;
    }
  } else {
    next = {program_->inputs[static_cast<std::size_t>(to)][lane.done], lane.next++};
    if (lane.next == program_->outgoing[next.outgoing].segments) {
      ++lane.done;
      lane.next = 0;
    }
  }
  const Outgoing& outgoing = program_->outgoing[next.outgoing];
  const Range range = program_->segment_range(outgoing.send.range, next.segment);
  const Source source = outgoing.send.source;
  const std::uint64_t element_bytes =
      data_->wire_bytes(source == Source::partial || source == Source::weighted_input);
  header.part = options_.part;
  header.step = outgoing.step;
  header.offset = (range.begin - outgoing.send.range.begin) * element_bytes;
  header.length = static_cast<std::uint32_t>(range.size() * element_bytes);
  header.empty = is_empty(outgoing);
  if (header.empty) return true;
  data_->outgoing(source, range, pieces);
  header.length = 0;
  for (const ByteView piece : pieces.view())
    header.length += static_cast<std::uint32_t>(piece.size());
  return true;
}

bool PartRun::is_empty(const Outgoing& outgoing) const {
  switch (outgoing.send.source) {
    case Source::input:
    case Source::weighted_input: return options_.weight == 0.0;
    case Source::partial: return all_empty(outgoing.folds);
    case Source::result: return false;
    case Source::credit: break;
  }
  return true;
}

bool PartRun::all_empty(const std::vector<std::uint32_t>& folds) const {
  return std::ranges::all_of(folds, [this](std::uint32_t fold) { return fold_empty_[fold] != 0; });
}

bool PartRun::copy_some(std::uint64_t bytes) {
  std::uint64_t done = 0;
  while (has_copies() && done < bytes) {
    const collectives::Copy& copy = program_->copies[copy_];
    const std::uint32_t segments = program_->segments_of(copy.from);
    if (copy_segment_ < segments) {
      done += program_->segment_elements * data_->memory_bytes();
      copy_segment(copy, copy_segment_++);
    }
    if (copy_segment_ < segments) continue;
    ++copy_;
    copy_segment_ = 0;
  }
  return has_copies();
}

void PartRun::copy_segment(const collectives::Copy& copy, std::uint32_t segment) {
  const Range from = program_->segment_range(copy.from, segment);
  const std::uint64_t begin = copy.begin + (from.begin - copy.from.begin);
  data_->copy(from, begin);
  made(program_->readers_of_copy[copy_], {copy.begin, copy.begin + copy.from.size()}, segment);
}

}  // namespace pyccl::engine
