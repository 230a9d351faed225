// A file descriptor that closes itself, and that a forked child does not keep: a socket that lives
// on in a child makes a peer that has died look alive, and a lock that does keeps its file locked.
#pragma once

#include <utility>

namespace pyccl {

class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) { reset(fd); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept;
  ~FileDescriptor() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // Keeps errno.
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

}  // namespace pyccl
