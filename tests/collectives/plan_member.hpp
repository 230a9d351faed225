// What the checker keeps of one rank while its plan runs.
#pragma once

#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "collectives/plan.hpp"
#include "collectives/symbol.hpp"
#include "collectives/task.hpp"

namespace pyccl::collectives {

// Cuts ranges into segments.
struct Segments {
  std::uint64_t size = 1;
  std::uint64_t of(Range range) const { return (range.size() + size - 1) / size; }
  Range part(Range range, std::uint64_t segment) const {
    const std::uint64_t begin = range.begin + segment * size;
    return {begin, begin + size < range.end ? begin + size : range.end};
  }
};

struct SendRun {
  int step = 0;
  const Send* send = nullptr;
};

struct FoldRun {
  int step = 0;
  const Fold* fold = nullptr;
  std::vector<std::size_t> missing;  // by segment: contributions, the own one included if partial
  std::vector<Buffer> staged;        // [segment * order.size() + place]
};

// A segment of a send or fold that reads what is not made yet.
struct Waiter {
  bool folds = false;
  std::size_t index = 0;  // of sends or folds
  std::uint64_t segment = 0;
  std::uint64_t missing = 0;  // elements
};

// A buffer that is made element by element, with those who wait for each and, by element, how many
// reads are still to come.
struct Memory {
  Buffer symbols;
  std::vector<std::uint32_t> unread;
  std::vector<std::vector<std::uint32_t>> waiters;  // by element

  void resize(std::uint64_t count) {
    symbols.resize(count);
    unread.resize(count);
    waiters.resize(count);
  }
  void count_reads(Range range, std::uint32_t by) {
    for (std::uint64_t i = range.begin; i < range.end; ++i) unread[i] += by;
  }
  Buffer read(Range range) const {
    return {symbols.begin() + static_cast<std::ptrdiff_t>(range.begin),
            symbols.begin() + static_cast<std::ptrdiff_t>(range.end)};
  }
};

using StepAndRank = std::pair<int, Rank>;

struct PlanMember {
  PlanMember(const Task& task, Rank self, const Plan& plan, const Segments& segments,
             bool in_place);

  Memory input;
  Memory partial;
  Memory result;
  std::vector<SendRun> sends;
  std::vector<FoldRun> folds;
  std::vector<SendRun> credits;
  std::vector<const Copy*> copies;
  std::vector<Waiter> waiters;
  std::map<const Fold*, std::size_t> fold_index;
  std::map<StepAndRank, std::size_t> receive_missing;         // segments
  std::map<StepAndRank, std::vector<std::size_t>> held_back;  // sends of input
  std::vector<std::uint64_t> folds_missing;                   // by step: segments
  std::vector<std::vector<std::size_t>> credits_after;        // by step: sends
  std::optional<std::int64_t> shift;  // of input against result, where they share memory
  std::uint64_t staged = 0;           // elements
  std::uint64_t unsent = 0;           // segments
  std::uint64_t sent = 0;             // elements

 private:
  void add_send(int step, const Send& send, const Segments& segments);
  void add_fold(Rank self, int step, const Fold& fold, const Segments& segments);
  void await(Memory& memory, Range range, const Waiter& waiter);
};

}  // namespace pyccl::collectives
