// What arrives: from the header of a segment to the fold that makes a result of it.
#include "engine/part_run.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"

namespace pyccl::engine {

using collectives::Range;

void PartRun::begin(const PartRunOptions& options, std::shared_ptr<const Program> program,
                    PartData& data, const Contributors& contributors, SlotPool& slots) {
  options_ = options;
  program_ = std::move(program);
  data_ = &data;
  contributors_ = &contributors;
  slots_ = &slots;
  received_.assign(program_->incoming_segments, 0);
  asked_.assign(program_->incoming_segments, 0);
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
    if (read.spare != nullptr) slots_->give_back(read.spare);
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

bool PartRun::is_partial(const Incoming& incoming) const {
  return incoming.fold >= 0 && !program_->folds[static_cast<std::size_t>(incoming.fold)].fold.plain;
}

std::uint64_t PartRun::wire_bytes(const Incoming& incoming) const {
  return data_->wire_bytes(is_partial(incoming));
}

void PartRun::segment(Rank from, const transport::SegmentHeader& header, transport::ReadToken token,
                      transport::MutablePieces& target) {
  // A header that fits no transfer comes from a peer that called something else; the mismatch of
  // the descriptors ends the operation, here it only must not harm anybody.
  const Incoming* incoming = program_->find_incoming(from, header.step);
  if (incoming == nullptr) return;
  const std::uint64_t element_bytes = wire_bytes(*incoming);
  const std::uint64_t segment_bytes = program_->segment_elements * element_bytes;
  if (header.offset % segment_bytes != 0) return;
  if (header.offset / segment_bytes >= incoming->segments) return;
  const auto segment = static_cast<std::uint32_t>(header.offset / segment_bytes);
  const Range range = program_->segment_range(incoming->range, segment);
  const std::uint64_t bytes = range.size() * element_bytes;
  const bool packed = header.length < bytes && header.length > 0 && !header.empty &&
                      data_->may_be_packed(is_partial(*incoming));
  if (header.length != bytes && !packed) return;
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
  std::byte* spare = nullptr;
  if (incoming->fold >= 0 || packed) {
    if (incoming->fold >= 0 && packed) spare = slots_->take();
    slot = slots_->take();
    target.push({slot, header.length});
  } else {
    data_->arriving(range, asked_[number] == 0, target);
    asked_[number] = 1;
  }
  const auto index = static_cast<std::size_t>(incoming - program_->incoming.data());
  reads_.push_back({from, token, index, segment, slot, spare, packed ? header.length : 0});
}

bool PartRun::segment_end(Rank from, transport::ReadToken token, bool complete) {
  const auto found = std::ranges::find_if(
      reads_, [&](const Read& each) { return each.token == token && each.from == from; });
  if (found == reads_.end()) return true;
  Read read = *found;
  *found = reads_.back();
  reads_.pop_back();
  const Incoming& incoming = program_->incoming[read.incoming];
  std::uint8_t& received = received_[incoming.first_segment + read.segment];
  const bool wanted = complete && (received == 0 || PYCCL_MUTANT("duplicate-segment"));
  const bool readable = wanted && unpack(read, incoming);
  if (read.spare != nullptr) slots_->give_back(read.spare);
  if (!readable) {
    if (read.slot != nullptr && !PYCCL_MUTANT("slot-leak")) slots_->give_back(read.slot);
    return !wanted;
  }
  if (incoming.fold >= 0) {
    contribution(incoming, read.segment, {read.slot, false});
    return true;
  }
  received = 1;
  data_->arrived(program_->segment_range(incoming.range, read.segment));
  --results_missing_;
  made(program_->readers_of_incoming[read.incoming], incoming.range, read.segment);
  if (--incoming_left_[read.incoming] == 0) received_all(incoming);
  return true;
}

// Of a fold into another slot, of a result to where it belongs.
bool PartRun::unpack(Read& read, const Incoming& incoming) {
  if (read.packed == 0) return true;
  const Range range = program_->segment_range(incoming.range, read.segment);
  const auto bytes = static_cast<std::size_t>(range.size() * wire_bytes(incoming));
  const ByteView packed(read.slot, read.packed);
  if (incoming.fold < 0) {
    transport::MutablePieces target;
    data_->arriving(range, true, target);
    if (!data_->unpack(packed, target.view().front())) return false;
    slots_->give_back(std::exchange(read.slot, nullptr));
    return true;
  }
  if (!data_->unpack(packed, {read.spare, bytes})) return false;
  std::swap(read.slot, read.spare);
  return true;
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
  run_fold(index, segment);
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

void PartRun::gather_contributions(const FoldPlan& plan, std::uint32_t segment) {
  const std::size_t places = plan.fold.order.size();
  const Staged* staged = &staged_[plan.first_staged + segment * places];
  contributions_.clear();
  for (std::size_t place = 0; place < places; ++place) {
    const Rank rank = plan.fold.order[place];
    const bool self = rank == program_->self;
    const double posted = contributors_->weights[static_cast<std::size_t>(rank)];
    double weight = plan.fold.plain ? posted : 1.0;
    if (self) weight = plan.own_partial ? 1.0 : options_.weight;
    // Data of a member without weight should not have come; it counts for nothing.
    const bool empty = self ? plan.own_partial && all_empty(plan.own_folds) : staged[place].empty;
    if (weight == 0.0 || empty) continue;
    contributions_.push_back({staged[place].slot, weight});
  }
}

void PartRun::run_fold(std::size_t index, std::uint32_t segment) {
  const FoldPlan& plan = program_->folds[index];
  gather_contributions(plan, segment);
  if (contributions_.empty()) {
    fold_empty_[index] = 1;
    return;
  }
  const bool divides = options_.averages && plan.fold.final;
  data_->fold({&plan.fold, program_->segment_range(plan.fold.range, segment), contributions_,
               divides ? contributors_->weight_sum : 1.0,
               !program_->readers_of_fold[index].empty()});
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
