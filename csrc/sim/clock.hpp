// The virtual clock: events in order of time, and of their scheduling where times are equal. Time
// jumps from event to event, so a silent hour costs nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "base/time.hpp"

namespace pyccl::sim {

class Clock final : public pyccl::Clock {
 public:
  using Action = std::function<void()>;

  Time now() const override { return now_; }

  void at(Time time, Action action) {
    events_.push({time < now_ ? now_ : time, scheduled_++, std::move(action)});
  }
  void after(Duration delay, Action action) { at(now_ + delay, std::move(action)); }

  // Runs the next event; false when there is none.
  bool step() {
    if (events_.empty()) return false;
    // The queue only hands out constants; the event is removed right behind.
    Action action = std::move(const_cast<Event&>(events_.top()).action);
    now_ = events_.top().time;
    events_.pop();
    action();
    return true;
  }

 private:
  struct Event {
    Time time;
    std::uint64_t ordinal;
    Action action;
    bool operator<(const Event& other) const {
      return std::pair(other.time, other.ordinal) < std::pair(time, ordinal);
    }
  };

  Time now_{1'000'000'000};
  std::uint64_t scheduled_ = 0;
  std::priority_queue<Event> events_;
};

}  // namespace pyccl::sim
