// The order that matters: a driver says so before it asks for the loop, and looks for what it may
// have left behind after it has said that it is gone.
#include "runtime/shared_loop.hpp"

#include <algorithm>
#include <chrono>

namespace pyccl::runtime {
namespace {

// After this long without a driver the loop's own thread takes over. Callers in a tight sequence of
// operations come back sooner, and then it is never woken for nothing more than this timer.
constexpr auto linger_time = std::chrono::milliseconds(2);

}  // namespace

void SharedLoop::run(const std::function<void()>& last) {
  while (!stopped()) {
    {
      const std::lock_guard owner(owner_);
      while (!stopped() && !driving_.load()) body_.turn(never, false);
    }
    if (!stopped()) linger();
  }
  const std::lock_guard owner(owner_);
  last();
}

void SharedLoop::linger() {
  std::unique_lock lock(linger_mutex_);
  std::uint64_t seen = drives_.load();
  while (!nudged_ && !stopped()) {
    linger_.wait_for(lock, linger_time);
    const std::uint64_t drives = drives_.load();
    if (!driving_.load() && drives == seen) break;
    seen = drives;
  }
  nudged_ = false;
}

void SharedLoop::nudge() {
  {
    const std::lock_guard lock(linger_mutex_);
    nudged_ = true;
  }
  linger_.notify_one();
}

void SharedLoop::stop() {
  stopped_.store(true, std::memory_order_release);
  reactor_.wake();
  nudge();
}

void SharedLoop::disturb(bool drives) {
  if (drives) return;
  reactor_.wake();
  if (!driving_.load()) nudge();
}

bool SharedLoop::drive(const std::function<bool()>& over, Duration at_most) {
  if (stopped()) return false;
  if (driving_.exchange(true)) {
    reactor_.wake();  // for what this caller has queued and nobody was told of
    return false;
  }
  drives_.fetch_add(1);
  const Turn turn(*this);
  const Time begin = reactor_.update_time();
  const Time end = at_most < never - begin ? begin + at_most : never;
  while (!over() && !stopped() && reactor_.now() < end) body_.turn(end, true);
  return true;
}

SharedLoop::Turn::Turn(SharedLoop& loop) : loop_(loop), owner_(loop.owner_, std::try_to_lock) {
  if (owner_.owns_lock()) return;
  loop_.reactor_.wake();
  owner_.lock();
}

SharedLoop::Turn::~Turn() {
  const bool busy = loop_.body_.busy();
  owner_.unlock();
  loop_.driving_.store(false);
  if (busy || loop_.stopped()) loop_.nudge();
}

}  // namespace pyccl::runtime
