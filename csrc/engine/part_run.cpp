// What arrives: from the header of a segment to the fold that makes a result of it.
#include "engine/part_run.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "engine/zip.hpp"

namespace pyccl::engine {

using collectives::Range;

void PartRun::begin(const PartRunOptions& options, std::shared_ptr<const Program> program,
                    PartMemory& memory, const Contributors& contributors, SlotPool& slots) {
  options_ = options;
  program_ = std::move(program);
  memory_ = &memory;
  contributors_ = &contributors;
  slots_ = &slots;
  element_bytes_ = kernels::size_of(memory.dtype());
  received_.assign(program_->incoming_segments, 0);
  saved_.assign(program_->incoming_segments, 0);
  incoming_left_.clear();
  for (const Incoming& incoming : program_->incoming) incoming_left_.push_back(incoming.segments);
  fold_missing_.clear();
  for (const FoldPlan& fold : program_->folds) {
    fold_missing_.insert(fold_missing_.end(), fold.segments,
                         fold.others + (fold.own_partial ? 1 : 0));
  }
  fold_empty_.assign(program_->folds.size(), 0);
  staged_.assign(program_->staged_places, {});
  reader_missing_ = program_->missing;
  step_folds_left_ = program_->fold_segments_of;
  open_.assign(program_->outgoing.size(), 1);
  for (const HeldBack& held : program_->held_back) open_[held.outgoing] = 0;
  lanes_.resize(program_->inputs.size());
  for (Lane& lane : lanes_) lane.reset();
  waiting_.clear();
  results_missing_ = program_->results;
  copy_ = 0;
  copy_segment_ = 0;
}

void PartRun::end() {
  for (const Read& read : reads_) {
    if (read.slot != nullptr) slots_->give_back(read.slot);
  }
  for (const Staged& staged : staged_) {
    if (staged.slot != nullptr) slots_->give_back(staged.slot);
  }
  reads_.clear();
  staged_.clear();
  program_.reset();
}

void PartRun::start() {
  for (std::size_t i = 0; i < program_->folds.size(); ++i) {
    const FoldPlan& fold = program_->folds[i];
    if (fold.others > 0 || fold.own_partial) continue;
    for (std::uint32_t segment = 0; segment < fold.segments; ++segment) fold_segment(i, segment);
  }
  // Steps without folds owe their credits to nobody's data.
  for (std::size_t step = 0; step < program_->credits.size(); ++step) {
    if (program_->fold_segments_of[step] == 0) step_folded(static_cast<std::uint16_t>(step));
  }
}

void PartRun::all_posted() {
  const auto waiting = std::exchange(waiting_, {});
  for (const auto& [fold, segment] : waiting) fold_segment(fold, segment);
}

ByteRange PartRun::bytes_of(Range range) const {
  return {range.begin * element_bytes_, range.end * element_bytes_};
}

void PartRun::segment(Rank from, const transport::SegmentHeader& header, transport::ReadToken token,
                      transport::MutablePieces& target) {
  // A header that fits no transfer comes from a peer that called something else; the mismatch of
  // the descriptors ends the operation, here it only must not harm anybody.
  const Incoming* incoming = program_->find_incoming(from, header.step);
  const std::uint64_t segment_bytes = program_->segment_elements * element_bytes_;
  if (incoming == nullptr || header.offset % segment_bytes != 0) return;
  if (header.offset / segment_bytes >= incoming->segments) return;
  const auto segment = static_cast<std::uint32_t>(header.offset / segment_bytes);
  const ByteRange range = bytes_of(program_->segment_range(incoming->range, segment));
  if (header.length != range.size()) return;
  const std::uint32_t number = incoming->first_segment + segment;
  if (received_[number] != 0 && !PYCCL_MUTANT("duplicate-segment")) {
    PYCCL_MARK("segment arrives twice");
    return;
  }
  if (incoming->credit()) {
    received_[number] = 1;
    received_all(*incoming);
    return;
  }
  if (header.empty) {
    if (incoming->fold >= 0) contribution(*incoming, segment, {nullptr, true});
    return;
  }
  std::byte* slot = nullptr;
  if (incoming->fold >= 0) {
    slot = slots_->take();
    target.push({slot, static_cast<std::size_t>(range.size())});
  } else {
    if (saved_[number] == 0) {
      memory_->before_result(range);
      saved_[number] = 1;
    }
    memory_->result_pieces(range, target);
  }
  const auto index = static_cast<std::size_t>(incoming - program_->incoming.data());
  reads_.push_back({from, token, index, segment, slot});
}

void PartRun::segment_end(Rank from, transport::ReadToken token, bool complete) {
  const auto found = std::ranges::find_if(
      reads_, [&](const Read& each) { return each.token == token && each.from == from; });
  if (found == reads_.end()) return;
  const Read read = *found;
  *found = reads_.back();
  reads_.pop_back();
  const Incoming& incoming = program_->incoming[read.incoming];
  std::uint8_t& received = received_[incoming.first_segment + read.segment];
  if (!complete || (received != 0 && !PYCCL_MUTANT("duplicate-segment"))) {
    if (read.slot != nullptr && !PYCCL_MUTANT("slot-leak")) slots_->give_back(read.slot);
    return;
  }
  if (incoming.fold >= 0) {
    contribution(incoming, read.segment, {read.slot, false});
    return;
  }
  received = 1;
  --results_missing_;
  made(program_->readers_of_incoming[read.incoming], incoming.range, read.segment);
  if (--incoming_left_[read.incoming] == 0) received_all(incoming);
}

void PartRun::contribution(const Incoming& incoming, std::uint32_t segment, Staged staged) {
  received_[incoming.first_segment + segment] = 1;
  const auto index = static_cast<std::size_t>(incoming.fold);
  const FoldPlan& plan = program_->folds[index];
  staged_[plan.first_staged + segment * plan.fold.order.size() + incoming.place] = staged;
  if (--fold_missing_[plan.first_segment + segment] == 0) fold_segment(index, segment);
}

void PartRun::fold_segment(std::size_t index, std::uint32_t segment) {
  const FoldPlan& plan = program_->folds[index];
  // The divisor, and the weights of others, are known when everybody has posted.
  if ((plan.fold.final || plan.fold.plain) && !contributors_->all_posted() &&
      !PYCCL_MUTANT("weights-not-awaited")) {
    PYCCL_MARK("data overtakes the announcement of its operation");
    waiting_.emplace_back(index, segment);
    return;
  }
  if (plan.fold.final) {
    memory_->before_result(bytes_of(program_->segment_range(plan.fold.range, segment)));
  }
  run_kernel(index, segment);
  const std::size_t places = plan.fold.order.size();
  for (std::size_t place = 0; place < places; ++place) {
    Staged& staged = staged_[plan.first_staged + segment * places + place];
    if (staged.slot != nullptr) slots_->give_back(staged.slot);
    staged = {};
  }
  if (plan.fold.final) --results_missing_;
  made(program_->readers_of_fold[index], plan.fold.range, segment);
  if (--step_folds_left_[plan.step] == 0) step_folded(plan.step);
}

// Fills sources_ and weights_; returns the own one's index among them, or their number.
std::size_t PartRun::gather_sources(const FoldPlan& plan, std::uint32_t segment) {
  const std::size_t places = plan.fold.order.size();
  const Staged* staged = &staged_[plan.first_staged + segment * places];
  sources_.clear();
  weights_.clear();
  std::size_t own = places;
  for (std::size_t place = 0; place < places; ++place) {
    const Rank rank = plan.fold.order[place];
    const bool self = rank == program_->self;
    const double posted = contributors_->weights[static_cast<std::size_t>(rank)];
    double weight = plan.fold.plain ? posted : 1.0;
    if (self) weight = plan.own_partial ? 1.0 : options_.weight;
    // Data of a member without weight should not have come; it counts for nothing.
    const bool empty = self ? plan.own_partial && all_empty(plan.own_folds) : staged[place].empty;
    if (weight == 0.0 || empty) continue;
    if (self) own = sources_.size();
    sources_.push_back(staged[place].slot);
    weights_.push_back(weight);
  }
  if (std::ranges::all_of(weights_, [](double weight) { return weight == 1.0; })) weights_.clear();
  return std::min(own, sources_.size());
}

void PartRun::run_kernel(std::size_t index, std::uint32_t segment) {
  const FoldPlan& plan = program_->folds[index];
  const std::size_t own = gather_sources(plan, segment);
  if (sources_.empty()) {
    fold_empty_[index] = 1;
    return;
  }
  const Range range = program_->segment_range(plan.fold.range, segment);
  transport::MutablePieces target;
  if (plan.fold.final) {
    memory_->result_pieces(bytes_of(range), target);
  } else {
    memory_->partial_pieces(bytes_of(range), target);
  }
  transport::Pieces own_pieces;
  if (own < sources_.size()) {
    const std::uint64_t begin = plan.fold.own_begin + (range.begin - plan.fold.range.begin);
    find_own(plan, bytes_of({begin, begin + range.size()}), own_pieces);
  }
  const bool average = options_.op == kernels::ReduceOp::avg && plan.fold.final;
  const double divisor = average ? contributors_->weight_sum : 1.0;
  const auto fold = kernels::best_target()
                        .fold[static_cast<int>(memory_->dtype())][static_cast<int>(options_.op)];
  const auto run = [&](const std::byte* own_data, std::byte* to, std::size_t size) {
    if (own < sources_.size()) sources_[own] = own_data;
    fold({to, sources_, weights_, divisor, size / element_bytes_});
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      if (i != own) sources_[i] += size;
    }
  };
  if (own < sources_.size()) return zip(own_pieces.view(), target.view(), run);
  for (const MutableByteView to : target.view()) run(nullptr, to.data(), to.size());
}

void PartRun::find_own(const FoldPlan& plan, ByteRange range, transport::Pieces& pieces) {
  if (!plan.own_partial) return memory_->input_pieces(range, pieces);
  transport::MutablePieces memory;
  memory_->partial_pieces(range, memory);
  for (const MutableByteView piece : memory.view()) pieces.push(piece);
}

void PartRun::made(const std::vector<std::uint32_t>& readers, Range whole, std::uint32_t segment) {
  for (const std::uint32_t number : readers) {
    const Reader& reader = program_->readers[number];
    if (reader.exact) {
      may_read(reader, segment);
      continue;
    }
    const Range range = program_->segment_range(whole, segment);
    const std::uint64_t begin = std::max(range.begin, reader.range.begin);
    const std::uint64_t end = std::min(range.end, reader.range.end);
    if (begin >= end) continue;
    const std::uint64_t unit = program_->segment_elements;
    const auto first = static_cast<std::uint32_t>((begin - reader.range.begin) / unit);
    const auto last = static_cast<std::uint32_t>((end - 1 - reader.range.begin) / unit);
    for (std::uint32_t k = first; k <= last; ++k) {
      if (--reader_missing_[reader.first_count + k] == 0) may_read(reader, k);
    }
  }
}

void PartRun::may_read(const Reader& reader, std::uint32_t segment) {
  if (!reader.fold) {
    const Rank to = program_->outgoing[reader.index].send.to;
    lanes_[static_cast<std::size_t>(to)].ready.push_back({reader.index, segment});
    return;
  }
  const FoldPlan& plan = program_->folds[reader.index];
  if (--fold_missing_[plan.first_segment + segment] == 0) fold_segment(reader.index, segment);
}

void PartRun::step_folded(std::uint16_t step) {
  for (const std::uint32_t index : program_->credits[step]) {
    const Rank to = program_->outgoing[index].send.to;
    lanes_[static_cast<std::size_t>(to)].ready.push_back({index, 0});
  }
}

void PartRun::received_all(const Incoming& incoming) {
  const auto name = std::pair(incoming.step, incoming.from);
  auto held = std::ranges::lower_bound(program_->held_back, name, {}, [](const HeldBack& each) {
    return std::pair(each.step, each.from);
  });
  for (; held != program_->held_back.end(); ++held) {
    if (std::pair(held->step, held->from) != name) break;
    open_[held->outgoing] = 1;
  }
}

}  // namespace pyccl::engine
