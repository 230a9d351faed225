// From a plan's steps to flat lists; what reads a range finds the makers of it, since no range of
// partial or result is written twice.
#include "engine/program.hpp"

#include <algorithm>
#include <map>

#include "base/assert.hpp"

namespace pyccl::engine {
namespace {

using collectives::Range;
using collectives::Source;

// Writes a range of partial or result.
struct Maker {
  enum class Kind { fold, incoming, copy } kind = Kind::fold;
  std::uint32_t index = 0;
  Range range;
};

// What earlier steps make of one buffer, by its begin.
using Makers = std::map<std::uint64_t, Maker>;

class Compiler {
 public:
  explicit Compiler(Program& program) : program_(program) {}

  void add(const collectives::Plan& plan) {
    for (std::size_t i = 0; i < plan.steps.size(); ++i) {
      step_ = static_cast<std::uint16_t>(i);
      add_step(plan.steps[i]);
    }
    number_held_back();
  }

 private:
  void add_step(const collectives::Step& step) {
    const std::size_t first_fold = program_.folds.size();
    const std::size_t first_copy = program_.copies.size();
    const std::size_t first_incoming = program_.incoming.size();
    for (const collectives::Fold& fold : step.folds) add_fold(fold);
    for (const collectives::Receive& receive : step.receives) {
      expect(receive.from, receive.range, -1, 0);
    }
    for (const collectives::Copy& copy : step.copies) program_.copies.push_back(copy);
    for (const collectives::Send& send : step.sends) add_send(send);
    order_incoming(first_incoming);
    // From here on: for later steps.
    std::uint32_t& fold_segments = program_.fold_segments_of[step_];
    for (std::size_t i = first_fold; i < program_.folds.size(); ++i) {
      const FoldPlan& fold = program_.folds[i];
      fold_segments += fold.segments;
      makes(fold.fold.final ? results_ : partials_, Maker::Kind::fold, i, fold.fold.range);
    }
    for (std::size_t i = first_incoming; i < program_.incoming.size(); ++i) {
      const Incoming& each = program_.incoming[i];
      if (each.fold < 0) makes(results_, Maker::Kind::incoming, i, each.range);
    }
    for (std::size_t i = first_copy; i < program_.copies.size(); ++i) {
      const collectives::Copy& copy = program_.copies[i];
      makes(results_, Maker::Kind::copy, i, {copy.begin, copy.begin + copy.from.size()});
    }
    program_.readers_of_fold.resize(program_.folds.size());
    program_.readers_of_incoming.resize(program_.incoming.size());
    program_.readers_of_copy.resize(program_.copies.size());
  }

  static void makes(Makers& makers, Maker::Kind kind, std::size_t index, Range range) {
    if (range.size() == 0) return;
    makers.emplace(range.begin, Maker{kind, static_cast<std::uint32_t>(index), range});
  }

  void expect(Rank from, Range range, int fold, std::size_t place) {
    Incoming incoming;
    incoming.from = from;
    incoming.step = step_;
    incoming.range = range;
    incoming.fold = fold;
    incoming.place = static_cast<std::uint32_t>(place);
    incoming.segments = incoming.credit() ? 1 : program_.segments_of(range);
    incoming.first_segment = program_.incoming_segments;
    program_.incoming_segments += incoming.segments;
    if (fold < 0 && !incoming.credit()) program_.results += incoming.segments;
    program_.incoming.push_back(incoming);
  }

  // Nothing refers to them by number yet.
  void order_incoming(std::size_t first) {
    std::sort(program_.incoming.begin() + static_cast<std::ptrdiff_t>(first),
              program_.incoming.end(),
              [](const Incoming& left, const Incoming& right) { return left.from < right.from; });
  }

  void add_fold(const collectives::Fold& fold) {
    const auto index = static_cast<std::uint32_t>(program_.folds.size());
    FoldPlan plan;
    plan.step = step_;
    plan.fold = fold;
    plan.segments = program_.segments_of(fold.range);
    plan.first_segment = program_.fold_segments;
    plan.first_staged = program_.staged_places;
    for (std::size_t place = 0; place < fold.order.size(); ++place) {
      if (fold.order[place] == program_.self) {
        plan.own_partial = fold.own == Source::partial;
        continue;
      }
      ++plan.others;
      expect(fold.order[place], fold.range, static_cast<int>(index), place);
    }
    program_.fold_segments += plan.segments;
    program_.staged_places += plan.segments * static_cast<std::uint32_t>(fold.order.size());
    if (fold.final) program_.results += plan.segments;
    program_.folds.push_back(plan);
    if (!plan.own_partial) return;
    const Range own{fold.own_begin, fold.own_begin + fold.range.size()};
    program_.folds.back().own_folds = add_reader(true, index, own, partials_);
  }

  void add_send(const collectives::Send& send) {
    const auto index = static_cast<std::uint32_t>(program_.outgoing.size());
    const bool credit = send.source == Source::credit;
    program_.outgoing.push_back({step_, send, credit ? 1 : program_.segments_of(send.range), {}});
    if (credit) {
      program_.credits[static_cast<std::size_t>(send.after)].push_back(index);
    } else if (collectives::reads_input(send.source)) {
      program_.inputs[static_cast<std::size_t>(send.to)].push_back(index);
      if (send.after == collectives::no_step) return;
      program_.held_back.push_back({static_cast<std::uint16_t>(send.after), send.to, index});
    } else {
      const bool partial = send.source == Source::partial;
      auto folds = add_reader(false, index, send.range, partial ? partials_ : results_);
      if (partial) program_.outgoing.back().folds = std::move(folds);
    }
  }

  // Returns the folds among the makers of the range.
  std::vector<std::uint32_t> add_reader(bool fold, std::uint32_t index, Range range,
                                        const Makers& makers) {
    Reader reader{fold, index, range, false, static_cast<std::uint32_t>(program_.missing.size())};
    const auto number = static_cast<std::uint32_t>(program_.readers.size());
    std::vector<std::uint32_t> folds;
    auto at = makers.upper_bound(range.begin);
    if (at != makers.begin()) --at;
    for (; at != makers.end() && at->first < range.end; ++at) {
      const Maker& maker = at->second;
      if (maker.range.end <= range.begin) continue;
      if (maker.kind == Maker::Kind::fold) folds.push_back(maker.index);
      followers(maker).push_back(number);
      reader.exact = maker.range == range;
      if (!reader.exact) count(reader, maker.range);
    }
    program_.readers.push_back(reader);
    return folds;
  }

  std::vector<std::uint32_t>& followers(const Maker& maker) {
    switch (maker.kind) {
      case Maker::Kind::fold: return program_.readers_of_fold[maker.index];
      case Maker::Kind::incoming: return program_.readers_of_incoming[maker.index];
      case Maker::Kind::copy: break;
    }
    return program_.readers_of_copy[maker.index];
  }

  // How many segments of `made` each segment of the reader waits for.
  void count(const Reader& reader, Range made) {
    const std::uint32_t segments = program_.segments_of(reader.range);
    program_.missing.resize(reader.first_count + segments);
    for (std::uint32_t k = 0; k < segments; ++k) {
      const Range wanted = program_.segment_range(reader.range, k);
      const std::uint64_t begin = std::max(wanted.begin, made.begin);
      const std::uint64_t end = std::min(wanted.end, made.end);
      if (begin >= end) continue;
      const std::uint64_t first = (begin - made.begin) / program_.segment_elements;
      const std::uint64_t last = (end - 1 - made.begin) / program_.segment_elements;
      program_.missing[reader.first_count + k] += static_cast<std::uint16_t>(last - first + 1);
    }
  }

  void number_held_back() {
    std::ranges::stable_sort(program_.held_back, [](const HeldBack& left, const HeldBack& right) {
      return std::pair(left.step, left.from) < std::pair(right.step, right.from);
    });
  }

  Program& program_;
  std::uint16_t step_ = 0;
  Makers partials_;
  Makers results_;
};

}  // namespace

Program::Program(const collectives::Plan& plan, Rank self_rank, Rank world,
                 std::uint64_t elements_of_segment)
    : self(self_rank),
      segment_elements(elements_of_segment),
      partial_count(plan.partial_count),
      partial_in_result(plan.partial_in_result),
      overwrites_unsent(plan.overwrites_unsent),
      inputs(static_cast<std::size_t>(world)),
      credits(plan.steps.size()),
      fold_segments_of(plan.steps.size()) {
  PYCCL_ASSERT(plan.steps.size() < 65'536 && elements_of_segment > 0);
  Compiler(*this).add(plan);
}

const Incoming* Program::find_incoming(Rank from, std::uint16_t step) const {
  const auto found =
      std::lower_bound(incoming.begin(), incoming.end(), std::pair(step, from),
                       [](const Incoming& each, const std::pair<std::uint16_t, Rank>& name) {
                         return std::pair(each.step, each.from) < name;
                       });
  if (found == incoming.end() || found->from != from || found->step != step) return nullptr;
  return &*found;
}

std::uint32_t Program::segments_of(Range range) const {
  return static_cast<std::uint32_t>((range.size() + segment_elements - 1) / segment_elements);
}

Range Program::segment_range(Range range, std::uint32_t segment) const {
  const std::uint64_t begin = range.begin + segment * segment_elements;
  return {begin, std::min(begin + segment_elements, range.end)};
}

}  // namespace pyccl::engine
