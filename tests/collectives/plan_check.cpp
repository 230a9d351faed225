// The dynamic half of the checker: all ranks' plans, run on symbols in a random order.
#include "collectives/plan_check.hpp"

#include <algorithm>
#include <utility>

#include "base/prng.hpp"
#include "collectives/plan_member.hpp"
#include "collectives/plan_rules.hpp"

namespace pyccl::collectives {
namespace {

// What may happen next: a segment of a send arrives, or a copy is made.
struct Event {
  Rank rank = 0;
  bool copies = false;
  std::size_t index = 0;
  std::uint64_t segment = 0;
};

class Run {
 public:
  Run(const Task& task, const std::vector<Plan>& plans, const CheckOptions& options)
      : task_(task), plans_(plans), segments_{options.segment}, random_(options.seed) {
    order_ = static_cast<Order>(random_.below(3));
    slow_ = static_cast<Rank>(random_.below(plans.size()));
    for (Rank self = 0; self < world(); ++self) {
      members_.emplace_back(task, self, plan(self), segments_, options.in_place);
      report_.sent.push_back(members_.back().sent);
    }
    for (Rank self = 0; self < world(); ++self) start(self);
  }

  CheckReport finish() {
    while (report_.fault.empty() && !ready_.empty()) {
      const Event event = draw();
      event.copies ? copy(event) : deliver(event);
    }
    for (Rank self = 0; self < world(); ++self) {
      verify(self);
      for (const Symbol& symbol : member(self).result.symbols) {
        report_.expressions.push_back(symbol.hash);
      }
    }
    return std::move(report_);
  }

 private:
  // Besides fair chance: the newest first, which lets some run far ahead; or one slow rank.
  enum class Order { any, newest, one_slow };

  Rank world() const { return static_cast<Rank>(plans_.size()); }
  PlanMember& member(Rank rank) { return members_[static_cast<std::size_t>(rank)]; }
  const Plan& plan(Rank rank) const { return plans_[static_cast<std::size_t>(rank)]; }
  void fail(Rank rank, int step, const char* what) {
    if (!report_.fault.empty()) return;
    report_.fault = "rank " + std::to_string(rank) + ", step " + std::to_string(step) + ": " + what;
  }

  // What depends on nothing: sends of input, copies, folds of the own input alone.
  void start(Rank self) {
    PlanMember& me = member(self);
    for (std::size_t i = 0; i < me.copies.size(); ++i) ready_.push_back({self, true, i, 0});
    for (std::size_t i = 0; i < me.sends.size(); ++i) {
      const Send& send = *me.sends[i].send;
      if (reads_input(send.source) && send.after == no_step) offer(self, i);
    }
    for (std::size_t i = 0; i < me.folds.size(); ++i) {
      for (std::uint64_t k = 0; k < me.folds[i].missing.size(); ++k) {
        if (me.folds[i].missing[k] == 0) make(self, i, k);
      }
    }
  }

  void offer(Rank self, std::size_t index) {
    const Range range = member(self).sends[index].send->range;
    const std::uint64_t count = std::max<std::uint64_t>(segments_.of(range), 1);
    for (std::uint64_t k = 0; k < count; ++k) ready_.push_back({self, false, index, k});
  }

  bool is_slow(const Event& event) {
    return event.rank == slow_ ||
           (!event.copies && member(event.rank).sends[event.index].send->to == slow_);
  }

  Event draw() {
    std::size_t index = random_.below(ready_.size());
    if (order_ == Order::newest && random_.chance(7, 8)) index = ready_.size() - 1;
    // What the slow rank does, sends or takes waits for some more draws.
    for (int again = 0; order_ == Order::one_slow && again < 4 && is_slow(ready_[index]); ++again) {
      index = random_.below(ready_.size());
    }
    std::swap(ready_[index], ready_.back());
    const Event event = ready_.back();
    ready_.pop_back();
    return event;
  }

  void copy(const Event& event) {
    PlanMember& me = member(event.rank);
    const Copy& copy = *me.copies[event.index];
    const Range range{copy.begin, copy.begin + copy.from.size()};
    me.input.count_reads(copy.from, ~0u);
    const bool same_memory = me.shift && static_cast<std::int64_t>(copy.from.begin) ==
                                             static_cast<std::int64_t>(copy.begin) + *me.shift;
    write_result(event.rank, 0, range, me.input.read(copy.from), same_memory);
  }

  void deliver(const Event& event) {
    PlanMember& sender = member(event.rank);
    const auto& [step, send] = sender.sends[event.index];
    --sender.unsent;
    const Taker taker = taker_of(plan(send->to).steps[static_cast<std::size_t>(step)], event.rank);
    if (send->source == Source::credit) {
      received(send->to, step, event.rank);
      return;
    }
    const Range range = segments_.part(send->range, event.segment);
    Buffer data = leave(event.rank, step, *send, range);
    if (taker.fold != nullptr) {
      stage(send->to, *taker.fold, event.rank, event.segment, std::move(data));
      return;
    }
    const std::uint64_t offset = range.begin - send->range.begin;
    const std::uint64_t begin = taker.receive->range.begin + offset;
    write_result(send->to, step, {begin, begin + range.size()}, data, false);
    received(send->to, step, event.rank);
  }

  // Takes a segment out of the sender's memory.
  Buffer leave(Rank self, int step, const Send& send, Range range) {
    PlanMember& me = member(self);
    if (send.source == Source::result) return me.result.read(range);
    if (send.source == Source::partial) {
      me.partial.count_reads(range, ~0u);
      return me.partial.read(range);
    }
    me.input.count_reads(range, ~0u);
    Buffer data = me.input.read(range);
    if (send.source == Source::weighted_input) {
      for (Symbol& symbol : data) symbol = weighted_symbol(symbol);
      me.partial.count_reads(range, ~0u);
      write_partial(self, step, range, data);
    }
    return data;
  }

  // A segment of a receive is there, or a credit: with the last one, inputs for the same rank that
  // wait for it may leave.
  void received(Rank self, int step, Rank from) {
    PlanMember& me = member(self);
    if (--me.receive_missing[{step, from}] > 0) return;
    const auto held = me.held_back.find({step, from});
    if (held == me.held_back.end()) return;
    for (std::size_t index : held->second) offer(self, index);
  }

  void stage(Rank self, const Fold& fold, Rank from, std::uint64_t segment, Buffer data) {
    PlanMember& me = member(self);
    const std::size_t index = me.fold_index.at(&fold);
    FoldRun& run = me.folds[index];
    me.staged += data.size();
    report_.staged_max = std::max(report_.staged_max, me.staged);
    const auto place = std::find(fold.order.begin(), fold.order.end(), from) - fold.order.begin();
    run.staged[segment * fold.order.size() + static_cast<std::size_t>(place)] = std::move(data);
    if (--run.missing[segment] == 0) make(self, index, segment);
  }

  // All contributions of one segment are there: fold them from left to right.
  void make(Rank self, std::size_t index, std::uint64_t segment) {
    PlanMember& me = member(self);
    FoldRun& run = me.folds[index];
    const Fold& fold = *run.fold;
    const Range range = segments_.part(fold.range, segment);
    std::vector<SymbolFold> sums(range.size());
    for (std::size_t place = 0; place < fold.order.size(); ++place) {
      const bool own = fold.order[place] == self;
      Buffer& staged = run.staged[segment * fold.order.size() + place];
      const Buffer next = own ? take_own(me, fold, segment) : std::exchange(staged, {});
      if (!own) me.staged -= next.size();
      const bool raw = own ? fold.own == Source::input : fold.plain;
      for (std::size_t i = 0; i < next.size(); ++i) {
        const char* fault = sums[i].add(next[i], raw);
        if (fault != nullptr) fail(self, run.step, fault);
      }
    }
    Buffer data;
    for (const SymbolFold& sum : sums) data.push_back(sum.stored(fold.final));
    if (fold.final) {
      write_result(self, run.step, range, data, false);
    } else {
      write_partial(self, run.step, range, data);
    }
    const auto step = static_cast<std::size_t>(run.step);
    if (--me.folds_missing[step] > 0) return;
    for (std::size_t credit : me.credits_after[step]) offer(self, credit);
  }

  Buffer take_own(PlanMember& me, const Fold& fold, std::uint64_t segment) {
    const Range all{fold.own_begin, fold.own_begin + fold.range.size()};
    const Range range = segments_.part(all, segment);
    Memory& memory = fold.own == Source::input ? me.input : me.partial;
    memory.count_reads(range, ~0u);
    return memory.read(range);
  }

  // `same_memory`: it is the input itself that becomes a result, so nothing is overwritten.
  void write_result(Rank self, int step, Range range, const Buffer& data, bool same_memory) {
    PlanMember& me = member(self);
    const bool in_result = plan(self).partial_in_result;
    for (std::uint64_t i = range.begin; i < range.end; ++i) {
      const Symbol& symbol = data[i - range.begin];
      if (symbol.weighted && !symbol.final) {
        fail(self, step, "a value that is not final reaches the result");
      }
      if (in_result && i < me.partial.unread.size() && me.partial.unread[i] > 0) {
        fail(self, step, "a result overwrites a partial sum still read");
      }
      if (!me.shift || same_memory) continue;
      const std::int64_t input = static_cast<std::int64_t>(i) + *me.shift;
      if (input < 0 || input >= static_cast<std::int64_t>(me.input.symbols.size())) continue;
      const auto at = static_cast<std::size_t>(input);
      if (me.input.unread[at] > 0) fail(self, step, "a result overwrites an input still read");
      me.input.symbols[at] = {};
    }
    write(self, step, me.result, range, data);
  }

  void write_partial(Rank self, int step, Range range, const Buffer& data) {
    PlanMember& me = member(self);
    for (std::uint64_t i = range.begin; i < range.end && plan(self).partial_in_result; ++i) {
      if (me.result.symbols[i].ranks != 0) fail(self, step, "a partial sum overwrites a result");
    }
    write(self, step, me.partial, range, data);
  }

  // Nothing is written twice, so nobody can read anything but what was meant. Who waits for what is
  // written goes on.
  void write(Rank self, int step, Memory& memory, Range range, const Buffer& data) {
    for (std::uint64_t i = range.begin; i < range.end; ++i) {
      if (memory.symbols[i].ranks != 0) fail(self, step, "a range is written twice");
      if (data[i - range.begin].ranks == 0) fail(self, step, "a value that nobody made");
      memory.symbols[i] = data[i - range.begin];
    }
    if (!report_.fault.empty()) return;
    PlanMember& me = member(self);
    for (std::uint64_t i = range.begin; i < range.end; ++i) {
      for (std::uint32_t number : memory.waiters[i]) {
        Waiter& waiter = me.waiters[number];
        if (--waiter.missing > 0) continue;
        if (!waiter.folds) {
          ready_.push_back({self, false, waiter.index, waiter.segment});
        } else if (--me.folds[waiter.index].missing[waiter.segment] == 0) {
          make(self, waiter.index, waiter.segment);
        }
      }
    }
  }

  void verify(Rank self) {
    const PlanMember& me = member(self);
    const int end = static_cast<int>(plan(self).steps.size());
    const auto all = static_cast<std::uint32_t>((1ull << plans_.size()) - 1);
    const std::vector<Origin> origins = origins_of(task_, self);
    for (std::size_t i = 0; i < origins.size() && report_.fault.empty(); ++i) {
      const Origin& origin = origins[i];
      const Symbol& symbol = me.result.symbols[i];
      if (symbol.ranks == 0) {
        fail(self, end, "deadlock: an element of the result is missing");
      } else if (symbol.at != origin.at) {
        fail(self, end, "an element of the result belongs elsewhere");
      } else if (!origin.folded) {
        const bool same = symbol.hash == input_symbol(origin.from, origin.at).hash;
        if (!same) fail(self, end, "an element of the result is another rank's, or changed");
      } else if (!symbol.final || symbol.ranks != all) {
        fail(self, end, "a contribution is missing");
      } else if (task_.kind == Kind::all_reduce &&
                 symbol.hash != member(0).result.symbols[i].hash) {
        fail(self, end, "ranks fold in different orders");
      }
    }
    if (me.unsent != 0) fail(self, end, "deadlock: a send never left");
    if (me.staged != 0) fail(self, end, "contributions are left over");
  }

  const Task& task_;
  const std::vector<Plan>& plans_;
  Segments segments_;
  Prng random_;
  Order order_ = Order::any;
  Rank slow_ = 0;
  std::vector<PlanMember> members_;
  std::vector<Event> ready_;
  CheckReport report_;
};

}  // namespace

CheckReport check(const Task& task, const std::vector<Plan>& plans, const CheckOptions& options) {
  PYCCL_ASSERT(!plans.empty() && plans.size() <= 32 && options.segment > 0);
  PYCCL_ASSERT(plans.size() == static_cast<std::size_t>(task.world));
  const std::string fault = broken_rule(task, plans);
  if (!fault.empty()) return {fault, {}, 0, {}};
  return Run(task, plans, options).finish();
}

}  // namespace pyccl::collectives
