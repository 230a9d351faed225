// Who runs a loop: its own thread, or a caller that has nothing to do but wait for it.
//
// A hand-off between threads costs 15 to 25 us on a busy host, two per call, more than a small
// operation needs on the wire. So a caller that waits takes the loop over and turns it itself. When
// it has what it waited for it just goes; the loop's own thread notices soon that nobody drives and
// takes over again, at once if others depend on it.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>

#include "base/time.hpp"
#include "runtime/reactor.hpp"

namespace pyccl::runtime {

class SharedLoop {
 public:
  struct Body {
    // One turn; waits for events until then at most. `driven`: by a caller that has nothing to do
    // meanwhile.
    std::function<void(Time, bool driven)> turn;
    std::function<bool()> busy;  // somebody depends on the loop even if nobody drives it
  };

  SharedLoop(Reactor& reactor, Body body) : reactor_(reactor), body_(std::move(body)) {}

  // The loop's own thread. After stop() it ends with `last`, while nobody else can be in the loop.
  void run(const std::function<void()>& last);
  void stop();  // any thread
  bool stopped() const { return stopped_.load(std::memory_order_acquire); }

  // Any thread: something has been queued for the loop. `drives`: by a caller that calls drive()
  // next, so nobody has to be woken for it.
  void disturb(bool drives);

  // Turns the loop until over() or the time has passed. False at once if another thread drives, or
  // the loop has stopped: then sleep.
  bool drive(const std::function<bool()>& over, Duration at_most);

 private:
  // A driver in the loop; goes however the driver leaves.
  class Turn {
   public:
    explicit Turn(SharedLoop& loop);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    SharedLoop& loop_;
    std::unique_lock<std::mutex> owner_;
  };

  void linger();
  void nudge();

  Reactor& reactor_;
  Body body_;
  std::mutex owner_;  // held by whoever is in the loop
  std::atomic<bool> stopped_ = false;
  std::atomic<bool> driving_ = false;
  std::atomic<std::uint64_t> drives_ = 0;
  std::mutex linger_mutex_;
  std::condition_variable linger_;
  bool nudged_ = false;
};

}  // namespace pyccl::runtime
