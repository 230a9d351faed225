// What sockets need of the loop that they live in. runtime/reactor.hpp is the one that ships.
#pragma once

namespace pyccl::transport::tcp {

class PollHandler {
 public:
  virtual ~PollHandler() = default;
  // Level triggered. `failed` comes unasked, alone if nothing is watched for.
  virtual void on_ready(bool readable, bool writable, bool failed) = 0;
  virtual void on_posted() {}
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
};

}  // namespace pyccl::transport::tcp
