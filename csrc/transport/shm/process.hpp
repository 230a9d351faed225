// Who this process is on its host, and what another process of the host lets it have.
#pragma once

#include <sys/types.h>

#include <string>

#include "base/file_descriptor.hpp"
#include "base/status.hpp"

namespace pyccl::transport::shm {

// Equal only where process numbers mean the same: one running kernel and one namespace of process
// numbers. Empty if the system doesn't say. Copies of one machine may be equal all the same.
std::string host_identity();

// Descriptors of another process. All come from the same one, even if its number is used again.
class OtherProcess {
 public:
  static Result<OtherProcess> open(pid_t pid);

  // Opened anew, so it has its own flags. What the number stands for is looked at before, since
  // opening has effects of its own on some files.
  Result<FileDescriptor> memory(int number) const;
  Result<FileDescriptor> pipe(int number, int flags) const;

 private:
  explicit OtherProcess(FileDescriptor folder) : folder_(std::move(folder)) {}
  Result<FileDescriptor> get(int number, const std::string& kind, int flags) const;

  FileDescriptor folder_;  // of its descriptors
};

}  // namespace pyccl::transport::shm
