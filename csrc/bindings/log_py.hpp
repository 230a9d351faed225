// The core's log lines on their way to Python's logging.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/log.hpp"
#include "base/queue.hpp"

namespace pyccl::bindings {

// Threads of the core add lines and ring the event descriptor; a Python thread that sleeps on it
// drains them. Bounded: what nobody reads is counted and dropped.
class LogLines {
 public:
  LogLines(int wake_fd, int level_min) : wake_fd_(wake_fd), level_min_(level_min) {}

  // Any thread, without Python's lock.
  void add(LogLevel level, std::string_view text);
  // (level, text); the level as the number of the enumeration.
  std::vector<std::pair<int, std::string>> drain();

 private:
  const int wake_fd_;
  const int level_min_;
  CommandQueue<std::pair<int, std::string>> lines_{1024};
  std::atomic<std::size_t> lost_ = 0;
};

// A sink for the core that keeps the lines alive; empty if there are none.
LogSink sink_for(std::shared_ptr<LogLines> lines);

// Adds one to an event descriptor. Never blocks: at the end of its range the reader is awake
// anyway.
void ring(int fd);

}  // namespace pyccl::bindings
