// Pipes; see bell.hpp.
#include "transport/shm/bell.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <system_error>
#include <utility>

namespace pyccl::transport::shm {

namespace {

struct Pipe {
  FileDescriptor read;
  FileDescriptor write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) {
    return Status(Code::io, "no pipe: " + std::generic_category().message(errno));
  }
  Pipe pipe{FileDescriptor(ends[0]), FileDescriptor(ends[1])};
  // A user may have only so much in pipes, and here one byte says all.
  (void)::fcntl(ends[1], F_SETPIPE_SZ, 4096);
  return pipe;
}

}  // namespace

Result<Bell> Bell::create() {
  Result<Pipe> in = make_pipe();
  if (!in.ok()) return in.status();
  Result<Pipe> out = make_pipe();
  if (!out.ok()) return out.status();
  return Bell(std::move(in.value().read), std::move(out.value().write),
              std::move(out.value().read));
}

Result<Bell> Bell::open(const OtherProcess& process, int to_creator, int from_creator) {
  Result<FileDescriptor> hear = process.pipe(from_creator, O_RDONLY);
  if (!hear.ok()) return hear.status();
  Result<FileDescriptor> ring = process.pipe(to_creator, O_RDWR);
  if (!ring.ok()) return ring.status();
  return Bell(hear.take(), ring.take(), FileDescriptor());
}

// If the pipe is full, the other one has enough to wake for.
void Bell::ring() {
  const std::byte one{1};
  (void)!::write(ring_.get(), &one, 1);
}

bool Bell::hear() {
  std::array<std::byte, 256> bytes;
  return ::read(hear_.get(), bytes.data(), bytes.size()) != 0;
}

void Bell::close() {
  hear_.reset();
  ring_.reset();
  kept_.reset();
}

}  // namespace pyccl::transport::shm
