// From a plan to what waits for what.
#include "collectives/plan_member.hpp"

#include <algorithm>

namespace pyccl::collectives {

PlanMember::PlanMember(const Task& task, Rank self, const Plan& plan, const Segments& segments,
                       bool in_place)
    : folds_missing(plan.steps.size()), credits_after(plan.steps.size()) {
  input.resize(input_count(task, self));
  partial.resize(plan.partial_count);
  result.resize(result_count(task, self));
  for (std::uint64_t i = 0; i < input.symbols.size(); ++i) {
    input.symbols[i] = input_symbol(self, i);
  }
  // Otherwise the executor reads a copy, and nothing that is written can do harm.
  if (in_place && !plan.overwrites_unsent) shift = in_place_shift(task, self);
  for (int at = 0; at < static_cast<int>(plan.steps.size()); ++at) {
    const Step& step = plan.steps[static_cast<std::size_t>(at)];
    for (const Send& send : step.sends) add_send(at, send, segments);
    for (const Fold& fold : step.folds) add_fold(self, at, fold, segments);
    for (const Receive& receive : step.receives) {
      receive_missing[{at, receive.from}] = std::max<std::size_t>(segments.of(receive.range), 1);
    }
    for (const Copy& copy : step.copies) {
      copies.push_back(&copy);
      input.count_reads(copy.from, 1);
    }
  }
}

void PlanMember::add_send(int step, const Send& send, const Segments& segments) {
  const std::size_t index = sends.size();
  sends.push_back({step, &send});
  sent += send.range.size();
  unsent += std::max<std::uint64_t>(segments.of(send.range), 1);
  if (send.source == Source::credit) {
    credits_after[static_cast<std::size_t>(send.after)].push_back(index);
    return;
  }
  if (reads_input(send.source)) {
    input.count_reads(send.range, 1);
    // It is made in partial, and read from there.
    if (send.source == Source::weighted_input) partial.count_reads(send.range, 1);
    if (send.after != no_step) held_back[{send.after, send.to}].push_back(index);
    return;
  }
  Memory& memory = send.source == Source::partial ? partial : result;
  memory.count_reads(send.range, 1);
  for (std::uint64_t k = 0; k < segments.of(send.range); ++k) {
    await(memory, segments.part(send.range, k), {false, index, k, 0});
  }
}

void PlanMember::add_fold(Rank self, int step, const Fold& fold, const Segments& segments) {
  const std::size_t index = folds.size();
  const std::uint64_t count = segments.of(fold.range);
  const bool takes_own = std::count(fold.order.begin(), fold.order.end(), self) > 0;
  const bool waits_for_own = takes_own && fold.own == Source::partial;
  const std::size_t missing = fold.order.size() - (takes_own && !waits_for_own ? 1 : 0);
  folds.push_back({step, &fold, std::vector<std::size_t>(count, missing),
                   std::vector<Buffer>(count * fold.order.size())});
  fold_index[&fold] = index;
  folds_missing[static_cast<std::size_t>(step)] += count;
  if (!takes_own) return;
  const Range own{fold.own_begin, fold.own_begin + fold.range.size()};
  Memory& memory = waits_for_own ? partial : input;
  memory.count_reads(own, 1);
  if (!waits_for_own) return;
  for (std::uint64_t k = 0; k < count; ++k) {
    await(memory, segments.part(own, k), {true, index, k, 0});
  }
}

void PlanMember::await(Memory& memory, Range range, const Waiter& waiter) {
  for (std::uint64_t i = range.begin; i < range.end; ++i) {
    memory.waiters[i].push_back(static_cast<std::uint32_t>(waiters.size()));
  }
  waiters.push_back(waiter);
  waiters.back().missing = range.size();
}

}  // namespace pyccl::collectives
