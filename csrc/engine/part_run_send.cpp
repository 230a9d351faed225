// What leaves: which segment may go next to a rank, and the memory that it is read from.
#include <algorithm>
#include <array>

#include "base/assert.hpp"
#include "engine/part_run.hpp"

namespace pyccl::engine {

using collectives::Source;

bool PartRun::has_segment(Rank to) const {
  const Lane& lane = lanes_[static_cast<std::size_t>(to)];
  if (!lane.ready.empty()) return true;
  // In the order of the plan: a block that must wait holds back those behind it.
  return lane.done < lane.inputs.size() && outgoing_[lane.inputs[lane.done]].open;
}

bool PartRun::next_segment(Rank to, transport::SegmentHeader& header, transport::Pieces& pieces) {
  Lane& lane = lanes_[static_cast<std::size_t>(to)];
  Ready next;
  if (!lane.ready.empty()) {
    // What was made here goes first: somebody waits for it.
    next = lane.ready.front();
    lane.ready.pop_front();
  } else {
    if (!has_segment(to)) return false;
    Outgoing& outgoing = outgoing_[lane.inputs[lane.done]];
    next = {lane.inputs[lane.done], outgoing.next++};
    if (outgoing.next == outgoing.segments) ++lane.done;
  }
  const Outgoing& outgoing = outgoing_[next.outgoing];
  const ByteRange range = bytes_of(segment_range(outgoing.send.range, next.segment));
  header.part = options_.part;
  header.step = outgoing.step;
  header.offset = range.begin - outgoing.send.range.begin * element_bytes_;
  header.length = static_cast<std::uint32_t>(range.size());
  header.empty = is_empty(outgoing, next.segment);
  if (!header.empty) fill_pieces(outgoing, range, pieces);
  return true;
}

bool PartRun::is_empty(const Outgoing& outgoing, std::size_t segment) const {
  if (collectives::reads_input(outgoing.send.source)) return options_.weight == 0.0;
  if (outgoing.send.source == Source::result) return false;
  const auto fold = std::ranges::find_if(folds_, [&](const FoldRun& run) {
    return run.step == outgoing.send.after && run.fold.range == outgoing.send.range;
  });
  return fold != folds_.end() && fold->made_empty[segment];
}

void PartRun::fill_pieces(const Outgoing& outgoing, ByteRange range, transport::Pieces& pieces) {
  const Source source = outgoing.send.source;
  if (source == Source::result) {
    transport::MutablePieces memory;
    memory_.result_pieces(range, memory);
    for (const MutableByteView piece : memory.view()) pieces.push(piece);
  } else if (source == Source::partial) {
    memory_.partial_pieces(range, pieces);
  } else if (source == Source::input || options_.weight == 1.0) {
    memory_.input_pieces(range, pieces);
  } else {
    // The begin of a chain of sums: nothing else needs this range of the partial sums.
    scale_input(range);
    memory_.partial_pieces(range, pieces);
  }
}

void PartRun::scale_input(ByteRange range) {
  const auto fold =
      kernels::best_target()
          .fold[static_cast<int>(memory_.dtype())][static_cast<int>(kernels::ReduceOp::sum)];
  const std::array<double, 1> weights{options_.weight};
  memory_.for_each_run(
      range, [&](const std::byte* input, std::byte* partial, std::byte*, std::size_t size) {
        const std::array<const std::byte*, 1> sources{input};
        fold({partial, sources, weights, 1.0, size / element_bytes_});
      });
}

}  // namespace pyccl::engine
