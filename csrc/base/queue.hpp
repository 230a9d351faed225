// Commands on their way to a loop: many threads push, one drains all there is in one go.
//
// A locked vector that is swapped out whole: producers hold the lock for one move, the consumer for
// one swap, and a burst costs one wake-up. Bounded: callers who outrun the loop are told so.
#pragma once

#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "base/assert.hpp"

namespace pyccl {

enum class Pushed {
  first,   // the queue was empty: the consumer may be asleep, wake it
  behind,  // whoever pushed first has seen to that
  full,    // refused; the item is untouched
  closed,  // refused; the item is untouched
};

template <class T>
class CommandQueue {
 public:
  explicit CommandQueue(std::size_t items_max) : items_max_(items_max) {
    PYCCL_ASSERT(items_max > 0);
  }

  // Any thread. Takes the item only if it is accepted.
  Pushed push(T& item) {
    const std::lock_guard lock(mutex_);
    if (closed_) return Pushed::closed;
    if (items_.size() >= items_max_) return Pushed::full;
    items_.push_back(std::move(item));
    return items_.size() == 1 ? Pushed::first : Pushed::behind;
  }

  // The consumer's. Replaces what `into` holds; handing in the same vector each time recycles its
  // memory.
  void drain(std::vector<T>& into) {
    into.clear();
    const std::lock_guard lock(mutex_);
    items_.swap(into);
  }

  bool empty() const {
    const std::lock_guard lock(mutex_);
    return items_.empty();
  }

  // Nothing is accepted from here on; what was accepted can still be drained.
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

 private:
  const std::size_t items_max_;
  mutable std::mutex mutex_;
  std::vector<T> items_;
  bool closed_ = false;
};

}  // namespace pyccl
