// What the runtime asks of the operating system besides sockets: threads and chance.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/status.hpp"

namespace pyccl::runtime {

// A thread that runs a loop until it is told to stop. It leaves signals to the program's own
// threads, and it may be ended from wherever a handle is dropped:
// - any other thread: join() waits for it;
// - the thread itself, inside a callback: join() returns, the loop ends after the callback;
// - a forked child, in which it does not exist: nothing happens there, and what the loop owns is
//   leaked, since taking it apart would unregister the parent's sockets.
class LoopThread {
 public:
  // Throws std::system_error where the system has no thread left. `owned` is what `body` works on;
  // it lives as long as the thread. The name shows in debuggers, at most 15 characters.
  LoopThread(const char* name, std::shared_ptr<void> owned, std::function<void()> body);
  ~LoopThread();
  LoopThread(const LoopThread&) = delete;
  LoopThread& operator=(const LoopThread&) = delete;

  // The caller has told the body to return. Any number of times, from any thread.
  void join();
  bool in_forked_child() const;

 private:
  const std::uint32_t generation_;
  const std::shared_ptr<void> owned_;
  std::mutex join_mutex_;
  std::thread thread_;
  std::thread::id id_;
};

// What an exception means that opening something has thrown, "a communicator" for instance: the
// system has run out of descriptors, threads or memory.
Status shortage(const std::string& what, const std::exception& error);

// Never 0, so that it can be an identity.
std::uint64_t random_identity();

}  // namespace pyccl::runtime
