// The dynamic half of the checker: all ranks' plans, run on symbols in a random order.
#include "collectives/plan_check.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "base/prng.hpp"
#include "collectives/plan_rules.hpp"

namespace pyccl::collectives {
namespace {

// An expression: its hash stands for the tree of folds, `ranks` for whose contributions are in it.
struct Symbol {
  std::uint64_t hash = 0;
  std::uint32_t ranks = 0;
  bool final = false;
  bool weighted = false;
};

std::uint64_t mixed(std::uint64_t x, std::uint64_t y) {
  return Prng(x * 0x9e3779b97f4a7c15ull + y).next();
}

using Buffer = std::vector<Symbol>;

// A fold or receive on its way: which segments of which source are there, and which are done.
struct Progress {
  std::map<std::pair<Rank, std::uint64_t>, Buffer> arrived;
  std::map<std::uint64_t, int> sources;  // by segment: how many sources have arrived
  std::uint64_t done = 0;                // segments
};

// A segment that may arrive next.
struct Event {
  Rank from = 0;
  int step = 0;
  const Send* send = nullptr;
  std::uint64_t segment = 0;
};

struct Peer {
  Buffer input;
  Buffer partial;
  Buffer result;
  // By element: sends that read it and have not arrived yet.
  std::vector<std::uint32_t> unread_input;
  std::vector<std::uint32_t> unread_partial;
  std::map<const void*, Progress> progress;
  std::uint64_t staged = 0;
  std::uint64_t unsent = 0;  // elements
};

class Run {
 public:
  Run(const std::vector<Plan>& plans, const CheckOptions& options)
      : plans_(plans), options_(options), random_(options.seed), peers_(plans.size()) {
    report_.sent.resize(plans.size());
    order_ = static_cast<Order>(random_.below(3));
    slow_ = static_cast<Rank>(random_.below(plans.size()));
    for (Rank self = 0; self < world(); ++self) prepare(self);
    for (Rank self = 0; self < world(); ++self) start(self);
  }

  CheckReport finish() {
    while (report_.fault.empty() && !ready_.empty()) deliver(draw());
    if (report_.fault.empty()) verify();
    return std::move(report_);
  }

 private:
  // Besides fair chance: the newest first, which lets some run far ahead; or one slow rank.
  enum class Order { any, newest, one_slow };

  Rank world() const { return static_cast<Rank>(plans_.size()); }
  Peer& peer(Rank rank) { return peers_[static_cast<std::size_t>(rank)]; }
  const Plan& plan(Rank rank) const { return plans_[static_cast<std::size_t>(rank)]; }
  std::uint64_t segments(Range range) const {
    return (range.size() + options_.segment - 1) / options_.segment;
  }
  Range part(Range range, std::uint64_t segment) const {
    const std::uint64_t begin = range.begin + segment * options_.segment;
    return {begin, std::min(begin + options_.segment, range.end)};
  }
  void fail(Rank rank, int step, const char* what) {
    if (!report_.fault.empty()) return;
    report_.fault = "rank " + std::to_string(rank) + ", step " + std::to_string(step) + ": " + what;
  }

  void prepare(Rank self) {
    Peer& me = peer(self);
    me.partial.resize(options_.count);
    me.result.resize(options_.count);
    me.unread_input.resize(options_.count);
    me.unread_partial.resize(options_.count);
    for (std::uint64_t i = 0; i < options_.count; ++i) {
      me.input.push_back({mixed(i, static_cast<std::uint64_t>(self)), 1u << self, false, false});
    }
    for (const Step& step : plan(self)) {
      for (const Send& send : step.sends) {
        report_.sent[static_cast<std::size_t>(self)] += send.range.size();
        me.unsent += send.range.size();
        count_unread(me, send.source, send.range, 1);
      }
    }
  }

  // `by` is added to what still reads the range. The weighted input is made in the partial buffer.
  static void count_unread(Peer& me, Source source, Range range, std::uint32_t by) {
    for (std::uint64_t i = range.begin; i < range.end; ++i) {
      if (reads_input(source)) me.unread_input[i] += by;
      if (source == Source::partial || source == Source::weighted_input) me.unread_partial[i] += by;
    }
  }

  // What depends on nothing: sends of input, folds of the own input alone.
  void start(Rank self) {
    for (int at = 0; at < static_cast<int>(plan(self).size()); ++at) {
      const Step& step = plan(self)[static_cast<std::size_t>(at)];
      for (const Send& send : step.sends) {
        if (send.after == no_step) offer(self, at, send);
      }
      for (const Fold& fold : step.folds) {
        if (fold.order != std::vector<Rank>{self}) continue;
        for (std::uint64_t k = 0; k < segments(fold.range); ++k) make(self, at, fold, k);
      }
    }
  }

  void offer(Rank self, int at, const Send& send) {
    for (std::uint64_t k = 0; k < segments(send.range); ++k) ready_.push_back({self, at, &send, k});
  }

  Event draw() {
    std::size_t index = random_.below(ready_.size());
    if (order_ == Order::newest && random_.chance(7, 8)) index = ready_.size() - 1;
    // What the slow rank sends or takes waits for some more draws.
    for (int again = 0; order_ == Order::one_slow && again < 4; ++again) {
      if (ready_[index].from != slow_ && ready_[index].send->to != slow_) break;
      index = random_.below(ready_.size());
    }
    std::swap(ready_[index], ready_.back());
    const Event event = ready_.back();
    ready_.pop_back();
    return event;
  }

  void deliver(const Event& event) {
    const Send& send = *event.send;
    Peer& sender = peer(event.from);
    const Range range = part(send.range, event.segment);
    sender.unsent -= range.size();
    const Buffer& source = reads_input(send.source)         ? sender.input
                           : send.source == Source::partial ? sender.partial
                                                            : sender.result;
    Buffer data(source.begin() + static_cast<std::ptrdiff_t>(range.begin),
                source.begin() + static_cast<std::ptrdiff_t>(range.end));
    count_unread(sender, send.source, range, ~0u);
    if (send.source == Source::weighted_input) {
      for (Symbol& symbol : data) symbol.weighted = true;
      write(event.from, event.step, sender.partial, range, data);
    }
    const Step& step = plan(send.to)[static_cast<std::size_t>(event.step)];
    const Taker taker = taker_of(step, event.from);
    if (taker.receive != nullptr) {
      write_result(send.to, event.step, range, data);
      Progress& progress = peer(send.to).progress[taker.receive];
      if (++progress.done == segments(send.range)) release_inputs(send.to, event);
      offer_made(send.to, event.step, send.range, Source::result, event.segment);
    } else {
      stage(send.to, event, *taker.fold, std::move(data));
    }
  }

  void stage(Rank self, const Event& event, const Fold& fold, Buffer data) {
    Peer& me = peer(self);
    Progress& progress = me.progress[&fold];
    me.staged += data.size();
    report_.staged_max = std::max(report_.staged_max, me.staged);
    progress.arrived[{event.from, event.segment}] = std::move(data);
    int awaited = 0;
    for (Rank rank : fold.order) awaited += rank == self ? 0 : 1;
    if (++progress.sources[event.segment] == awaited) make(self, event.step, fold, event.segment);
  }

  // All contributions of one segment are there: fold them from left to right.
  void make(Rank self, int at, const Fold& fold, std::uint64_t segment) {
    Peer& me = peer(self);
    const Range range = part(fold.range, segment);
    Buffer sum;
    for (Rank rank : fold.order) {
      Buffer next;
      if (rank == self) {
        next.assign(me.input.begin() + static_cast<std::ptrdiff_t>(range.begin),
                    me.input.begin() + static_cast<std::ptrdiff_t>(range.end));
      } else {
        next = std::move(me.progress[&fold].arrived[{rank, segment}]);
        me.staged -= next.size();
      }
      for (Symbol& symbol : next) {
        const bool raw = rank == self || fold.plain;
        if (symbol.weighted == raw) fail(self, at, "a weight is missing or applied twice");
        symbol.weighted = true;
      }
      if (sum.empty()) {
        sum = std::move(next);
        continue;
      }
      for (std::size_t i = 0; i < sum.size(); ++i) {
        if ((sum[i].ranks & next[i].ranks) != 0) fail(self, at, "a contribution is folded twice");
        if (sum[i].final || next[i].final) fail(self, at, "a final value is folded again");
        sum[i] = {mixed(sum[i].hash, next[i].hash), sum[i].ranks | next[i].ranks, false, true};
      }
    }
    for (Symbol& symbol : sum) symbol.final = fold.final;
    if (fold.final) {
      write_result(self, at, range, sum);
    } else {
      for (std::uint64_t i = range.begin; i < range.end; ++i) {
        if (me.result[i].ranks != 0) fail(self, at, "a partial sum overwrites a result");
      }
      write(self, at, me.partial, range, sum);
    }
    offer_made(self, at, fold.range, fold.final ? Source::result : Source::partial, segment);
  }

  void write_result(Rank self, int at, Range range, const Buffer& data) {
    Peer& me = peer(self);
    for (const Symbol& symbol : data) {
      if (!symbol.final) fail(self, at, "a value that is not final reaches the result");
    }
    for (std::uint64_t i = range.begin; i < range.end; ++i) {
      if (me.unread_partial[i] > 0) fail(self, at, "a result overwrites a partial sum still sent");
      if (!options_.in_place) continue;
      if (me.unread_input[i] > 0) fail(self, at, "a result overwrites an input still sent");
      me.input[i] = {};
    }
    write(self, at, me.result, range, data);
  }

  // Nothing is written twice, so no send can find anything but what it was meant to send.
  void write(Rank self, int at, Buffer& buffer, Range range, const Buffer& data) {
    for (std::uint64_t i = range.begin; i < range.end; ++i) {
      if (buffer[i].ranks != 0) fail(self, at, "a range is written twice");
      if (data[i - range.begin].ranks == 0) fail(self, at, "a value that nobody made");
      buffer[i] = data[i - range.begin];
    }
  }

  // Segment `segment` of what step `at` makes is there: the sends that wait for it may leave.
  void offer_made(Rank self, int at, Range range, Source source, std::uint64_t segment) {
    for (int later = at; later < static_cast<int>(plan(self).size()); ++later) {
      for (const Send& send : plan(self)[static_cast<std::size_t>(later)].sends) {
        if (send.after == at && send.source == source && send.range == range) {
          ready_.push_back({self, later, &send, segment});
        }
      }
    }
  }

  // A whole receive is there: inputs for the same peer that wait for it may leave.
  void release_inputs(Rank self, const Event& event) {
    for (int later = event.step; later < static_cast<int>(plan(self).size()); ++later) {
      for (const Send& send : plan(self)[static_cast<std::size_t>(later)].sends) {
        if (send.after == event.step && reads_input(send.source) && send.to == event.from) {
          offer(self, later, send);
        }
      }
    }
  }

  void verify() {
    const std::uint32_t all = static_cast<std::uint32_t>((1ull << plans_.size()) - 1);
    for (Rank self = 0; self < world(); ++self) {
      const int end = static_cast<int>(plan(self).size());
      if (peer(self).staged != 0) fail(self, end, "contributions are left over");
      for (std::uint64_t i = 0; i < options_.count; ++i) {
        const Symbol& symbol = peer(self).result[i];
        if (symbol.ranks == 0) fail(self, end, "deadlock: an element of the result is missing");
        if (symbol.ranks != all) fail(self, end, "a contribution is missing");
        if (symbol.hash != peer(0).result[i].hash)
          fail(self, end, "ranks fold in different orders");
      }
      if (peer(self).unsent != 0) fail(self, end, "deadlock: a send never left");
    }
  }

  const std::vector<Plan>& plans_;
  const CheckOptions& options_;
  Prng random_;
  Order order_ = Order::any;
  Rank slow_ = 0;
  std::vector<Peer> peers_;
  std::vector<Event> ready_;
  CheckReport report_;
};

}  // namespace

CheckReport check_all_reduce(const std::vector<Plan>& plans, const CheckOptions& options) {
  PYCCL_ASSERT(!plans.empty() && plans.size() <= 32 && options.segment > 0);
  const std::string fault = broken_rule(plans, options.count);
  if (!fault.empty()) return {fault, {}, 0};
  return Run(plans, options).finish();
}

}  // namespace pyccl::collectives
