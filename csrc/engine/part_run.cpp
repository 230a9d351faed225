// What arrives: from the header of a segment to the fold that makes a result of it.
#include "engine/part_run.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"

namespace pyccl::engine {

using collectives::Range;
using collectives::Source;

PartRun::PartRun(const PartRunOptions& options, collectives::Plan plan, PartMemory& memory,
                 const Contributors& contributors, SlotPool& slots)
    : options_(options),
      memory_(memory),
      contributors_(contributors),
      slots_(slots),
      element_bytes_(kernels::size_of(memory.dtype())),
      segment_elements_(std::max<std::uint64_t>(options.segment_bytes / element_bytes_, 1)),
      incoming_(plan.size()),
      followers_(plan.size()),
      held_back_(plan.size()),
      lanes_(contributors.weights.size()) {
  for (std::size_t step = 0; step < plan.size(); ++step) {
    add_step(static_cast<std::uint16_t>(step), plan[step]);
  }
}

PartRun::~PartRun() {
  for (const Read& read : reads_) {
    if (read.slot != nullptr) slots_.give_back(read.slot);
  }
  for (const FoldRun& fold : folds_) {
    for (const Staged& staged : fold.staged) {
      if (staged.slot != nullptr) slots_.give_back(staged.slot);
    }
  }
}

void PartRun::add_step(std::uint16_t step, const collectives::Step& plan) {
  auto expect = [&](Rank from, Range range, int fold, std::size_t place) {
    const std::size_t segments = segments_of(range);
    incoming_[step].push_back({from, step, range, fold, place, std::vector<bool>(segments),
                               std::vector<bool>(segments), segments});
  };
  for (const collectives::Receive& receive : plan.receives) {
    expect(receive.from, receive.range, -1, 0);
    results_missing_ += segments_of(receive.range);
  }
  for (const collectives::Fold& fold : plan.folds) {
    const int index = static_cast<int>(folds_.size());
    const std::size_t segments = segments_of(fold.range);
    const std::size_t others =
        fold.order.size() - static_cast<std::size_t>(std::ranges::count(fold.order, options_.self));
    folds_.push_back(
        {step, fold, std::vector<std::uint32_t>(segments, static_cast<std::uint32_t>(others)),
         std::vector<Staged>(segments * fold.order.size()), std::vector<bool>(segments)});
    for (std::size_t place = 0; place < fold.order.size(); ++place) {
      if (fold.order[place] != options_.self) expect(fold.order[place], fold.range, index, place);
    }
    if (fold.final) results_missing_ += segments;
  }
  for (const collectives::Send& send : plan.sends) {
    const std::size_t index = outgoing_.size();
    const bool input = collectives::reads_input(send.source);
    outgoing_.push_back(
        {step, send, segments_of(send.range), 0, input && send.after == collectives::no_step});
    if (input) {
      lanes_[static_cast<std::size_t>(send.to)].inputs.push_back(index);
      if (send.after != collectives::no_step) {
        held_back_[static_cast<std::size_t>(send.after)].push_back(index);
      }
    } else {
      followers_[static_cast<std::size_t>(send.after)].push_back(index);
    }
  }
}

void PartRun::start() {
  for (std::size_t fold = 0; fold < folds_.size(); ++fold) {
    for (std::size_t segment = 0; segment < folds_[fold].missing.size(); ++segment) {
      if (folds_[fold].missing[segment] == 0) fold_segment(fold, segment);
    }
  }
}

void PartRun::all_posted() {
  const auto waiting = std::exchange(waiting_, {});
  for (const auto& [fold, segment] : waiting) fold_segment(fold, segment);
}

std::size_t PartRun::segments_of(Range range) const {
  return static_cast<std::size_t>((range.size() + segment_elements_ - 1) / segment_elements_);
}

Range PartRun::segment_range(Range range, std::size_t segment) const {
  const std::uint64_t begin = range.begin + segment * segment_elements_;
  return {begin, std::min(begin + segment_elements_, range.end)};
}

ByteRange PartRun::bytes_of(Range range) const {
  return {range.begin * element_bytes_, range.end * element_bytes_};
}

PartRun::Incoming* PartRun::find_incoming(Rank from, std::uint16_t step) {
  if (step >= incoming_.size()) return nullptr;
  for (Incoming& incoming : incoming_[step]) {
    if (incoming.from == from) return &incoming;
  }
  return nullptr;
}

void PartRun::segment(Rank from, const transport::SegmentHeader& header, transport::ReadToken token,
                      transport::MutablePieces& target) {
  // A header that fits no transfer comes from a peer that called something else; the mismatch of
  // the descriptors ends the operation, here it only must not harm anybody.
  Incoming* incoming = find_incoming(from, header.step);
  if (incoming == nullptr || header.offset % (segment_elements_ * element_bytes_) != 0) return;
  const auto segment =
      static_cast<std::size_t>(header.offset / (segment_elements_ * element_bytes_));
  if (segment >= incoming->received.size()) return;
  const ByteRange range = bytes_of(segment_range(incoming->range, segment));
  if (header.length != range.size()) return;
  if (incoming->received[segment] && !PYCCL_MUTANT("duplicate-segment")) {
    PYCCL_MARK("segment arrives twice");
    return;
  }
  if (header.empty) {
    if (incoming->fold >= 0) contribution(*incoming, segment, {nullptr, true});
    return;
  }
  std::byte* slot = nullptr;
  if (incoming->fold >= 0) {
    slot = slots_.take();
    target.push({slot, static_cast<std::size_t>(range.size())});
  } else {
    if (!incoming->saved[segment]) {
      memory_.before_result(range);
      incoming->saved[segment] = true;
    }
    memory_.result_pieces(range, target);
  }
  const auto index = static_cast<std::size_t>(incoming - incoming_[header.step].data());
  reads_.push_back({from, token, header.step, index, segment, slot});
}

void PartRun::segment_end(Rank from, transport::ReadToken token, bool complete) {
  const auto found = std::ranges::find_if(
      reads_, [&](const Read& each) { return each.token == token && each.from == from; });
  if (found == reads_.end()) return;
  const Read read = *found;
  *found = reads_.back();
  reads_.pop_back();
  Incoming& incoming = incoming_[read.step][read.incoming];
  if (!complete || (incoming.received[read.segment] && !PYCCL_MUTANT("duplicate-segment"))) {
    if (read.slot != nullptr && !PYCCL_MUTANT("slot-leak")) slots_.give_back(read.slot);
    return;
  }
  if (incoming.fold >= 0) {
    contribution(incoming, read.segment, {read.slot, false});
    return;
  }
  incoming.received[read.segment] = true;
  --results_missing_;
  made(incoming.step, incoming.range, read.segment, true);
  if (--incoming.missing == 0) received_all(incoming);
}

void PartRun::contribution(Incoming& incoming, std::size_t segment, Staged staged) {
  incoming.received[segment] = true;
  --incoming.missing;
  const auto index = static_cast<std::size_t>(incoming.fold);
  FoldRun& run = folds_[index];
  run.staged[segment * run.fold.order.size() + incoming.place] = staged;
  if (--run.missing[segment] == 0) fold_segment(index, segment);
}

void PartRun::fold_segment(std::size_t index, std::size_t segment) {
  FoldRun& run = folds_[index];
  // The divisor, and the weights of others, are known when everybody has posted.
  if ((run.fold.final || run.fold.plain) && !contributors_.all_posted() &&
      !PYCCL_MUTANT("weights-not-awaited")) {
    PYCCL_MARK("data overtakes the announcement of its operation");
    waiting_.emplace_back(index, segment);
    return;
  }
  const Range range = segment_range(run.fold.range, segment);
  if (run.fold.final) memory_.before_result(bytes_of(range));
  run_kernel(run, segment, bytes_of(range));
  for (std::size_t place = 0; place < run.fold.order.size(); ++place) {
    Staged& staged = run.staged[segment * run.fold.order.size() + place];
    if (staged.slot != nullptr) slots_.give_back(staged.slot);
    staged = {};
  }
  if (run.fold.final) --results_missing_;
  made(run.step, run.fold.range, segment, run.fold.final);
}

void PartRun::run_kernel(FoldRun& run, std::size_t segment, ByteRange range) {
  const std::size_t places = run.fold.order.size();
  const Staged* staged = &run.staged[segment * places];
  std::vector<const std::byte*> sources;
  std::vector<double> weights;
  std::size_t own = places;  // index among the sources
  for (std::size_t place = 0; place < places; ++place) {
    const Rank rank = run.fold.order[place];
    const bool self = rank == options_.self;
    const double posted = contributors_.weights[static_cast<std::size_t>(rank)];
    const double weight = self ? options_.weight : run.fold.plain ? posted : 1.0;
    // Data of a member without weight should not have come; it counts for nothing.
    if (weight == 0.0 || (!self && staged[place].empty)) continue;
    if (self) own = sources.size();
    sources.push_back(staged[place].slot);
    weights.push_back(weight);
  }
  if (sources.empty()) {
    run.made_empty[segment] = true;
    return;
  }
  const bool average = options_.op == kernels::ReduceOp::avg && run.fold.final;
  if (std::ranges::all_of(weights, [](double weight) { return weight == 1.0; })) weights.clear();
  const auto fold =
      kernels::best_target().fold[static_cast<int>(memory_.dtype())][static_cast<int>(options_.op)];
  memory_.for_each_run(
      range, [&](const std::byte* input, std::byte* partial, std::byte* result, std::size_t size) {
        if (own < sources.size()) sources[own] = input;
        fold({run.fold.final ? result : partial, sources, weights,
              average ? contributors_.weight_sum : 1.0, size / element_bytes_});
        for (std::size_t i = 0; i < sources.size(); ++i) {
          if (i != own) sources[i] += size;
        }
      });
}

void PartRun::made(std::uint16_t step, Range range, std::size_t segment, bool result) {
  for (std::size_t index : followers_[step]) {
    const collectives::Send& send = outgoing_[index].send;
    if (send.range == range && (send.source == Source::result) == result) {
      lanes_[static_cast<std::size_t>(send.to)].ready.push_back({index, segment});
    }
  }
}

void PartRun::received_all(const Incoming& incoming) {
  for (const std::size_t index : held_back_[incoming.step]) {
    if (outgoing_[index].send.to == incoming.from) outgoing_[index].open = true;
  }
}

}  // namespace pyccl::engine
