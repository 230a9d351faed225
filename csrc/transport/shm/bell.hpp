// Two pipes between two processes: a byte in one wakes the process that waits at its end, and when
// one of the processes has gone, in whatever way, the other one reads the end.
//
// A process also keeps open the reading end of the pipe that it writes to: else a ring to one that
// has just died would be answered with SIGPIPE, which ends programs.
#pragma once

#include "base/file_descriptor.hpp"
#include "base/status.hpp"
#include "transport/shm/process.hpp"

namespace pyccl::transport::shm {

class Bell {
 public:
  static Result<Bell> create();
  // The other end of a bell that this process has created with these numbers.
  static Result<Bell> open(const OtherProcess& process, int to_creator, int from_creator);

  int to_creator() const { return hear_.get(); }
  int from_creator() const { return ring_.get(); }

  int fd() const { return hear_.get(); }  // readable: somebody has rung, or the other end has gone
  void ring();
  bool hear();  // takes all rings; false: the other end has gone
  void close();

 private:
  Bell(FileDescriptor hear, FileDescriptor ring, FileDescriptor kept)
      : hear_(std::move(hear)), ring_(std::move(ring)), kept_(std::move(kept)) {}

  FileDescriptor hear_;
  FileDescriptor ring_;  // of who has not created it: for reading, too
  FileDescriptor kept_;
};

}  // namespace pyccl::transport::shm
