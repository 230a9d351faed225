// What streams need of the loop that they live in. runtime/reactor.hpp is the one that ships.
#pragma once

namespace pyccl::transport {

class PollHandler {
 public:
  virtual ~PollHandler() = default;
  // Level triggered. `failed` comes unasked, alone if nothing is watched for.
  virtual void on_ready(bool readable, bool writable, bool failed) = 0;
  virtual void on_posted() {}
};

// Something that becomes ready without a descriptor, because another process writes to memory that
// both have. The loop looks at it in each turn, and while it spins. Before it waits it lets it
// doze: from then on what would make it ready rings a descriptor that is watched.
class MemoryHandler {
 public:
  virtual ~MemoryHandler() = default;
  virtual bool ready() = 0;      // a few loads
  virtual void on_memory() = 0;  // level triggered: in each turn in which it is ready
  virtual bool doze() = 0;       // false: it is ready already, and awake
  virtual void rouse() = 0;      // the wait is over
};

class Poller {
 public:
  virtual ~Poller() = default;
  // Adds the descriptor or changes what it is watched for. The handler stays the same.
  virtual void watch(int fd, PollHandler* handler, bool readable, bool writable) = 0;
  // Before the descriptor is closed. The handler hears nothing any more, not even what this turn
  // has already gathered.
  virtual void unwatch(int fd) = 0;
  // Calls on_posted() in the next turn, once.
  virtual void post(PollHandler* handler) = 0;
  virtual void cancel_post(PollHandler* handler) = 0;
  // Each once, in an order that does not matter; unwatched, it hears nothing any more.
  virtual void watch_memory(MemoryHandler* handler) = 0;
  virtual void unwatch_memory(MemoryHandler* handler) = 0;
};

}  // namespace pyccl::transport
