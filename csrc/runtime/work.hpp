// The handle of a call that runs on the reactor's thread: wait for it, ask it, or be told.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/status.hpp"
#include "base/time.hpp"
#include "engine/request.hpp"

namespace pyccl::runtime {

class Work;

// Lets a thread that waits for a Work run the loop that will finish it (shared_loop.hpp).
class WorkDriver {
 public:
  virtual ~WorkDriver() = default;
  // False in a forked child, in which no thread will ever finish anything.
  virtual bool in_this_process() const = 0;
  // False: it can't now, sleep instead.
  virtual bool drive(const Work& work, Duration at_most) = 0;
};

class Work {
 public:
  Work() = default;
  explicit Work(std::weak_ptr<WorkDriver> driver) : driver_(std::move(driver)) {}

  // True when it has ended within `at_most`. Any thread; does not cancel anything.
  bool wait(Duration at_most);
  bool done() const { return done_.load(std::memory_order_acquire); }
  // Valid once done() is true, and unchanged from then on.
  const Status& status() const;
  const engine::OperationInfo& info() const;
  // Called once, on the thread that runs the loop then, or at once if it has ended. Must not block
  // or call the communicator.
  void on_done(std::function<void()> callback);

  // Reactor side; once.
  void finish(Status status, engine::OperationInfo info);

 private:
  std::weak_ptr<WorkDriver> driver_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  // Set last and under the mutex; readers that see it need no lock for the rest.
  std::atomic<bool> done_ = false;
  Status status_;
  engine::OperationInfo info_;
  std::vector<std::function<void()>> callbacks_;
};

using WorkPtr = std::shared_ptr<Work>;

}  // namespace pyccl::runtime
