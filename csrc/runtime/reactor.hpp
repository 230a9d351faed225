// The loop that a communicator or a coordinator lives in: waits for sockets, a deadline or a
// wake-up, and calls whoever is concerned.
//
// Changes of what a descriptor is watched for are handed to the kernel only before the next wait,
// so that on-and-off within a turn costs nothing. Handlers may unwatch, close and destroy anything,
// themselves included, inside a call.
//
// Memory that other processes write to is looked at without asking the kernel; while there is
// something in it, descriptors are asked about now and then only.
//
// A loop that may spin looks for a while before it sleeps: to be woken takes longer than most
// things that it waits for.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "base/file_descriptor.hpp"
#include "base/time.hpp"
#include "transport/poller.hpp"

namespace pyccl::runtime {

class Reactor final : public transport::Poller, public Clock {
 public:
  // Throws std::system_error where the system has no descriptor left.
  Reactor();
  ~Reactor() override;
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // One turn: waits until something is ready, the deadline has come or somebody has called wake(),
  // then calls the handlers of all that is ready.
  void run_once(Time deadline);

  // Each wait begins with so long without sleep.
  void spin_for(Duration duration) { spin_ = duration; }

  // From any thread, also from a signal handler. A wake-up between two turns is not lost; what the
  // caller did before it is seen after the run_once that it ends.
  void wake();

  // When the present turn began.
  Time now() const override { return now_; }
  // Reads the clock; for hosts that begin their turn elsewhere.
  Time update_time();

  void watch(int fd, transport::PollHandler* handler, bool readable, bool writable) override;
  void unwatch(int fd) override;
  void post(transport::PollHandler* handler) override;
  void cancel_post(transport::PollHandler* handler) override;
  void watch_memory(transport::MemoryHandler* handler) override;
  void unwatch_memory(transport::MemoryHandler* handler) override;

 private:
  static constexpr int events_per_turn = 64;

  struct Entry {
    transport::PollHandler* handler = nullptr;
    std::uint32_t generation = 0;  // tells a descriptor from a closed one of the same number
    std::uint32_t wanted = 0;
    std::uint32_t registered = 0;
    bool known = false;  // to the kernel
    bool changed = false;
  };

  void apply_changes();
  int wait_milliseconds(Time deadline) const;
  int gather(Time deadline);
  int spin(Time deadline);
  int rest(Time deadline);
  int poll(int milliseconds);
  bool take_wake();
  bool memory_ready() const;
  bool doze();
  void run_posted();
  void run_memory();
  void dispatch(std::uint64_t name, std::uint32_t events);

  FileDescriptor epoll_;
  FileDescriptor wake_;
  std::atomic<bool> woken_{false};   // wake() has been called and the loop has not noticed yet
  std::atomic<bool> asleep_{false};  // the loop waits, or will before it looks at woken_ again
  Duration spin_{};
  Time now_;
  std::vector<Entry> entries_;  // by descriptor
  std::vector<int> changed_;
  std::vector<transport::PollHandler*> posted_;
  std::vector<transport::PollHandler*> running_;  // posted before this turn
  std::vector<transport::MemoryHandler*> memory_;
  std::array<epoll_event, events_per_turn> events_;
  Time polled_;  // when the kernel was asked last
};

}  // namespace pyccl::runtime
