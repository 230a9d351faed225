// Time is an argument. Only the hosts (runtime and simulator) know a clock; everything else is told
// what time it is.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <limits>
#include <optional>

namespace pyccl {

using Duration = std::chrono::nanoseconds;
using namespace std::chrono_literals;

// Nanoseconds since an arbitrary start; monotonic.
struct Time {
  std::int64_t nanoseconds = 0;
  auto operator<=>(const Time&) const = default;
  friend Time operator+(Time t, Duration d) { return {t.nanoseconds + d.count()}; }
  friend Time operator-(Time t, Duration d) { return {t.nanoseconds - d.count()}; }
  friend Duration operator-(Time a, Time b) { return Duration(a.nanoseconds - b.nanoseconds); }
};

inline constexpr Time never{std::numeric_limits<std::int64_t>::max()};

// The time of the host's present turn: read once when a turn begins, the same for all that happens
// in it.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;
};

// The earlier of two optional deadlines.
inline std::optional<Time> earlier(std::optional<Time> a, std::optional<Time> b) {
  if (!a) return b;
  if (!b) return a;
  return *a < *b ? a : b;
}

}  // namespace pyccl
