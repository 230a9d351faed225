// Work: one flag, one condition. Whoever waits sleeps on the condition and is woken once.
#include "runtime/work.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace pyccl::runtime {

namespace {

// Beyond this a wait counts as endless; it keeps "now + at_most" from overflowing.
constexpr Duration wait_max = 24h * 365 * 100;

}  // namespace

bool Work::wait(Duration at_most) {
  if (done()) return true;
  if (at_most <= Duration::zero()) return false;
  const auto deadline = std::chrono::steady_clock::now() + std::min(at_most, wait_max);
  if (const auto driver = driver_.lock()) {
    if (!driver->in_this_process()) {
      finish(Status(Code::closed, "a forked process can't use its parent's work"), {});
      return true;
    }
    // A loop that is being stopped lets its driver go before it has ended what is open: sleep then.
    if (driver->drive(*this, at_most) && done()) return true;
  }
  std::unique_lock lock(mutex_);
  return ended_.wait_until(lock, deadline, [this] { return done(); });
}

const Status& Work::status() const {
  PYCCL_ASSERT(done());
  return status_;
}

const engine::OperationInfo& Work::info() const {
  PYCCL_ASSERT(done());
  return info_;
}

void Work::on_done(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (!done()) {
      callbacks_.push_back(std::move(callback));
      return;
    }
  }
  callback();
}

void Work::finish(Status status, engine::OperationInfo info) {
  std::vector<std::function<void()>> callbacks;
  {
    const std::lock_guard lock(mutex_);
    PYCCL_ASSERT(!done());
    status_ = std::move(status);
    info_ = std::move(info);
    done_.store(true, std::memory_order_release);
    callbacks.swap(callbacks_);
  }
  // Outside the lock: the waiter would wake only to sleep again on the mutex.
  ended_.notify_all();
  for (const auto& callback : callbacks) callback();
}

}  // namespace pyccl::runtime
