// What /proc knows; see process.hpp.
//
// Opening what another process has open this way asks for the right to look at that process, which
// its owner has; to get hold of the descriptor itself would ask for the right to trace it, which
// many systems grant to nobody.
#include "transport/shm/process.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <system_error>

namespace pyccl::transport::shm {

namespace {

std::string first_word(const char* path) {
  const FileDescriptor file(::open(path, O_RDONLY | O_CLOEXEC));
  std::array<char, 64> text{};
  const ssize_t count = file.valid() ? ::read(file.get(), text.data(), text.size()) : 0;
  std::string word(text.data(), static_cast<std::size_t>(count > 0 ? count : 0));
  return word.substr(0, word.find_first_of(" \n"));
}

Status failure(const std::string& what) {
  return {Code::io, what + ": " + std::generic_category().message(errno)};
}

}  // namespace

std::string host_identity() {
  const std::string boot = first_word("/proc/sys/kernel/random/boot_id");
  struct stat numbers{};
  if (boot.empty() || ::stat("/proc/self/ns/pid", &numbers) != 0) return {};
  return boot + "-" + std::to_string(numbers.st_dev) + "-" + std::to_string(numbers.st_ino);
}

Result<OtherProcess> OtherProcess::open(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/fd";
  FileDescriptor folder(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!folder.valid()) return failure("process " + std::to_string(pid) + " can't be looked at");
  return OtherProcess(std::move(folder));
}

Result<FileDescriptor> OtherProcess::memory(int number) const {
  return get(number, "/memfd:pyccl", O_RDWR);
}

Result<FileDescriptor> OtherProcess::pipe(int number, int flags) const {
  return get(number, "pipe:[", flags | O_NONBLOCK);
}

Result<FileDescriptor> OtherProcess::get(int number, const std::string& kind, int flags) const {
  const std::string name = std::to_string(number);
  std::string target(kind.size(), '\0');
  const ssize_t count = ::readlinkat(folder_.get(), name.c_str(), target.data(), target.size());
  if (count < 0) return failure("a descriptor of the other process can't be looked at");
  if (target != kind) {
    return Status(Code::protocol_violation, "a descriptor of the other process is none of " + kind);
  }
  FileDescriptor fd(::openat(folder_.get(), name.c_str(), flags | O_CLOEXEC));
  if (!fd.valid()) return failure("a descriptor of the other process can't be opened");
  return fd;
}

}  // namespace pyccl::transport::shm
