// The static half of the checker: ranges, partners and dependencies.
#include "collectives/plan_rules.hpp"

#include <algorithm>
#include <set>

namespace pyccl::collectives {
namespace {

bool valid(Range range, std::uint64_t count) {
  return range.begin < range.end && range.end <= count;
}

std::string place(Rank rank, std::size_t step) {
  return "rank " + std::to_string(rank) + ", step " + std::to_string(step) + ": ";
}

// Does `step` make exactly this range of this buffer?
bool makes(const Step& step, Source source, Range range) {
  for (const Fold& fold : step.folds) {
    if (fold.range == range && fold.final == (source == Source::result)) return true;
  }
  return source == Source::result &&
         std::any_of(step.receives.begin(), step.receives.end(),
                     [&](const Receive& receive) { return receive.range == range; });
}

bool receives_from(const Step& step, Rank peer) {
  return std::any_of(step.receives.begin(), step.receives.end(),
                     [&](const Receive& receive) { return receive.from == peer; });
}

std::string broken_dependency(const Plan& plan, std::size_t at, const Send& send) {
  if (send.after == no_step) {
    return reads_input(send.source) ? "" : "a send of what was made names no step";
  }
  if (send.after < 0 || static_cast<std::size_t>(send.after) > at) {
    return "a send waits for a later step";
  }
  const Step& awaited = plan[static_cast<std::size_t>(send.after)];
  if (reads_input(send.source)) {
    return receives_from(awaited, send.to) ? "" : "a send waits for a receive that is not there";
  }
  return makes(awaited, send.source, send.range) ? "" : "a send's range is not what its step makes";
}

// Each source of the step once, its range valid, and a send of the same range at the other side.
std::string broken_sources(const std::vector<Plan>& plans, Rank self, std::size_t at) {
  const Step& step = plans[static_cast<std::size_t>(self)][at];
  std::set<Rank> sources;
  const auto broken_source = [&](Rank from, Range range) -> std::string {
    if (from < 0 || static_cast<std::size_t>(from) >= plans.size()) return "an unknown source";
    if (!sources.insert(from).second) return "two transfers from one source";
    const Plan& plan = plans[static_cast<std::size_t>(from)];
    if (at >= plan.size()) return "a source has no such step";
    for (const Send& send : plan[at].sends) {
      if (send.to == self) return send.range == range ? "" : "a source sends another range";
    }
    return "a source sends nothing";
  };
  for (const Receive& receive : step.receives) {
    if (receive.from == self) return "a receive from itself";
    const std::string fault = broken_source(receive.from, receive.range);
    if (!fault.empty()) return fault;
  }
  for (const Fold& fold : step.folds) {
    const std::set<Rank> order(fold.order.begin(), fold.order.end());
    if (order.size() != fold.order.size()) return "a fold takes a rank twice";
    for (Rank from : fold.order) {
      if (from == self) continue;
      const std::string fault = broken_source(from, fold.range);
      if (!fault.empty()) return fault;
    }
  }
  return "";
}

std::string broken_sends(const std::vector<Plan>& plans, Rank self, std::size_t at,
                         std::uint64_t count) {
  const Plan& plan = plans[static_cast<std::size_t>(self)];
  std::set<Rank> targets;
  for (const Send& send : plan[at].sends) {
    if (!valid(send.range, count)) return "a send of no valid range";
    if (send.to == self || send.to < 0 || static_cast<std::size_t>(send.to) >= plans.size()) {
      return "a send to nobody";
    }
    if (!targets.insert(send.to).second) return "two sends to one rank";
    const Plan& other = plans[static_cast<std::size_t>(send.to)];
    const Taker taker = at < other.size() ? taker_of(other[at], self) : Taker{};
    if (taker.fold == nullptr && taker.receive == nullptr) return "a send that nobody takes";
    const std::string fault = broken_dependency(plan, at, send);
    if (!fault.empty()) return fault;
  }
  return "";
}

std::string broken_ranges(const Step& step, std::uint64_t count) {
  for (const Receive& receive : step.receives) {
    if (!valid(receive.range, count)) return "a receive of no valid range";
  }
  for (const Fold& fold : step.folds) {
    if (!valid(fold.range, count) || fold.order.empty()) return "a fold of nothing";
  }
  return "";
}

}  // namespace

Taker taker_of(const Step& step, Rank from) {
  for (const Receive& receive : step.receives) {
    if (receive.from == from) return {&receive, nullptr};
  }
  for (const Fold& fold : step.folds) {
    if (std::find(fold.order.begin(), fold.order.end(), from) != fold.order.end()) {
      return {nullptr, &fold};
    }
  }
  return {};
}

std::string broken_rule(const std::vector<Plan>& plans, std::uint64_t count) {
  for (Rank self = 0; static_cast<std::size_t>(self) < plans.size(); ++self) {
    const Plan& plan = plans[static_cast<std::size_t>(self)];
    for (std::size_t at = 0; at < plan.size(); ++at) {
      for (const std::string& fault :
           {broken_ranges(plan[at], count), broken_sources(plans, self, at),
            broken_sends(plans, self, at, count)}) {
        if (!fault.empty()) return place(self, at) + fault;
      }
    }
  }
  return "";
}

}  // namespace pyccl::collectives
