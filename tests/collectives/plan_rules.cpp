// The static half of the checker: ranges, partners and dependencies.
#include "collectives/plan_rules.hpp"

#include <algorithm>
#include <set>

namespace pyccl::collectives {
namespace {

// Which elements of a buffer the steps so far have made.
class Made {
 public:
  explicit Made(std::uint64_t count) : made_(count) {}
  void add(Range range) {
    std::fill(made_.begin() + static_cast<std::ptrdiff_t>(range.begin),
              made_.begin() + static_cast<std::ptrdiff_t>(range.end), true);
  }
  bool covers(Range range) const {
    return std::all_of(made_.begin() + static_cast<std::ptrdiff_t>(range.begin),
                       made_.begin() + static_cast<std::ptrdiff_t>(range.end),
                       [](bool made) { return made; });
  }

 private:
  std::vector<bool> made_;
};

bool within(Range range, std::uint64_t count) {
  return range.begin <= range.end && range.end <= count;
}
bool valid(Range range, std::uint64_t count) { return range.size() > 0 && within(range, count); }

bool takes(const Fold& fold, Rank rank) {
  return std::find(fold.order.begin(), fold.order.end(), rank) != fold.order.end();
}

// The rules of one rank's plan; what it expects of the others is among them.
class Rules {
 public:
  Rules(const Task& task, const std::vector<Plan>& plans, Rank self)
      : plans_(plans),
        plan_(plans[static_cast<std::size_t>(self)]),
        self_(self),
        inputs_(input_count(task, self)),
        results_(result_count(task, self)),
        partial_(plan_.partial_count),
        result_(results_) {}

  std::string broken() {
    if (plan_.steps.size() >= 65536) return place(0) + "more steps than have a number";
    if (plan_.partial_in_result && plan_.partial_count > results_) {
      return place(0) + "the partial sums do not fit into the result";
    }
    for (std::size_t at = 0; at < plan_.steps.size(); ++at) {
      // One after the other, for each relies on those before it.
      std::string fault = broken_ranges(at);
      if (fault.empty()) fault = broken_sources(at);
      if (fault.empty()) fault = broken_sends(at);
      if (fault.empty()) fault = broken_reads(at);
      if (!fault.empty()) return place(at) + fault;
      add_made(plan_.steps[at]);
    }
    return "";
  }

 private:
  std::string place(std::size_t step) const {
    return "rank " + std::to_string(self_) + ", step " + std::to_string(step) + ": ";
  }
  bool is_other(Rank rank) const {
    return rank != self_ && rank >= 0 && static_cast<std::size_t>(rank) < plans_.size();
  }

  std::string broken_ranges(std::size_t at) const {
    for (const Receive& receive : plan_.steps[at].receives) {
      if (!within(receive.range, results_)) return "a receive of no valid range";
    }
    for (const Fold& fold : plan_.steps[at].folds) {
      if (!valid(fold.range, fold.final ? results_ : plan_.partial_count) || fold.order.empty()) {
        return "a fold of no valid range";
      }
      if (!takes(fold, self_)) continue;
      if (fold.own != Source::input && fold.own != Source::partial) {
        return "a fold of what is no own contribution";
      }
      const Range own{fold.own_begin, fold.own_begin + fold.range.size()};
      if (!valid(own, fold.own == Source::input ? inputs_ : plan_.partial_count)) {
        return "a fold of no valid own range";
      }
    }
    for (const Copy& copy : plan_.steps[at].copies) {
      if (!valid(copy.from, inputs_) ||
          !valid({copy.begin, copy.begin + copy.from.size()}, results_)) {
        return "a copy of no valid range";
      }
    }
    return "";
  }

  // Each source of the step once, and a send of as many elements at the other side.
  std::string broken_sources(std::size_t at) const {
    std::set<Rank> sources;
    const auto broken_source = [&](Rank from, std::uint64_t count) -> std::string {
      if (!is_other(from)) return "an unknown source";
      if (!sources.insert(from).second) return "two transfers from one source";
      const std::vector<Step>& steps = plans_[static_cast<std::size_t>(from)].steps;
      if (at >= steps.size()) return "a source has no such step";
      for (const Send& send : steps[at].sends) {
        if (send.to != self_) continue;
        return send.range.size() == count ? "" : "a source sends another number of elements";
      }
      return "a source sends nothing";
    };
    for (const Receive& receive : plan_.steps[at].receives) {
      const std::string fault = broken_source(receive.from, receive.range.size());
      if (!fault.empty()) return fault;
    }
    for (const Fold& fold : plan_.steps[at].folds) {
      const std::set<Rank> order(fold.order.begin(), fold.order.end());
      if (order.size() != fold.order.size()) return "a fold takes a rank twice";
      for (Rank from : fold.order) {
        const std::string fault = from == self_ ? "" : broken_source(from, fold.range.size());
        if (!fault.empty()) return fault;
      }
    }
    return "";
  }

  std::string broken_sends(std::size_t at) const {
    std::set<Rank> targets;
    for (const Send& send : plan_.steps[at].sends) {
      if (!is_other(send.to)) return "a send to nobody";
      if (!targets.insert(send.to).second) return "two sends to one rank";
      const std::vector<Step>& steps = plans_[static_cast<std::size_t>(send.to)].steps;
      const Taker taker = at < steps.size() ? taker_of(steps[at], self_) : Taker{};
      if (taker.fold == nullptr && taker.receive == nullptr) return "a send that nobody takes";
      const std::string fault = broken_dependency(at, send);
      if (!fault.empty()) return fault;
    }
    return "";
  }

  std::string broken_dependency(std::size_t at, const Send& send) const {
    const bool waits = send.after != no_step;
    if (waits && (send.after < 0 || static_cast<std::size_t>(send.after) > at)) {
      return "a send waits for a later step";
    }
    const Step& awaited = plan_.steps[waits ? static_cast<std::size_t>(send.after) : at];
    if (send.source == Source::credit) {
      if (send.range != Range{}) return "a credit that moves something";
      return waits && !awaited.folds.empty() ? "" : "a credit for nothing";
    }
    const bool from_partial = send.source == Source::partial;
    const std::uint64_t count = reads_input(send.source) ? inputs_
                                : from_partial           ? plan_.partial_count
                                                         : results_;
    if (!valid(send.range, count)) return "a send of no valid range";
    if (send.source == Source::weighted_input && send.range.end > plan_.partial_count) {
      return "a weighted input that has no place";
    }
    if (!waits) return "";
    if (!reads_input(send.source)) return "a send of what was made names a step";
    const Taker taker = taker_of(awaited, send.to);
    return taker.receive != nullptr ? "" : "a send waits for a receive that is not there";
  }

  // What a step reads of partial and result, earlier steps have made.
  std::string broken_reads(std::size_t at) const {
    for (const Send& send : plan_.steps[at].sends) {
      const bool reads = send.source == Source::partial || send.source == Source::result;
      const Made& made = send.source == Source::partial ? partial_ : result_;
      if (reads && !made.covers(send.range)) return "a send of what no earlier step makes";
    }
    for (const Fold& fold : plan_.steps[at].folds) {
      if (!takes(fold, self_) || fold.own != Source::partial) continue;
      if (!partial_.covers({fold.own_begin, fold.own_begin + fold.range.size()})) {
        return "a fold of what no earlier step makes";
      }
    }
    return "";
  }

  void add_made(const Step& step) {
    for (const Receive& receive : step.receives) result_.add(receive.range);
    for (const Fold& fold : step.folds) (fold.final ? result_ : partial_).add(fold.range);
    for (const Copy& copy : step.copies) {
      result_.add({copy.begin, copy.begin + copy.from.size()});
    }
  }

  const std::vector<Plan>& plans_;
  const Plan& plan_;
  Rank self_;
  std::uint64_t inputs_;
  std::uint64_t results_;
  Made partial_;
  Made result_;
};

}  // namespace

Taker taker_of(const Step& step, Rank from) {
  for (const Receive& receive : step.receives) {
    if (receive.from == from) return {&receive, nullptr};
  }
  for (const Fold& fold : step.folds) {
    if (takes(fold, from)) return {nullptr, &fold};
  }
  return {};
}

std::string broken_rule(const Task& task, const std::vector<Plan>& plans) {
  for (Rank self = 0; static_cast<std::size_t>(self) < plans.size(); ++self) {
    const std::string fault = Rules(task, plans, self).broken();
    if (!fault.empty()) return fault;
  }
  return "";
}

}  // namespace pyccl::collectives
