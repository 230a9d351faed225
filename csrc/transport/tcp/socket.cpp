// System calls around sockets; see socket.hpp.
#include "transport/tcp/socket.hpp"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <system_error>

namespace pyccl::transport::tcp {

namespace {

// Options that a kernel does not have are not worth failing for.
void set_option(int fd, int level, int name, int value) {
  (void)setsockopt(fd, level, name, &value, sizeof value);
}

}  // namespace

FileDescriptor make_socket(int family) {
  return FileDescriptor(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

// Buffer sizes are left to the kernel, which tunes them to the link.
void set_stream_options(int fd, Duration silence_limit) {
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(silence_limit).count();
  const int seconds = static_cast<int>(milliseconds / 1000) + 1;
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(milliseconds));
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, (seconds + 1) / 2);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, (seconds + 3) / 4);
}

void limit_unsent(int fd) {
  // With 4 lossy streams of cubic over 40 ms, transfers of 32 MiB end 1.2 to 2 times sooner.
  constexpr int bytes = 512 * 1024;
  set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, bytes);
}

// Where the system's congestion control is BBR, it sets timers to space packets out that cross no
// wire: 256 MiB take a fifth longer. Reno is in every kernel, and what is lost nowhere needs no
// cleverer one. Only before the connection is there: pacing, once begun, stays.
void avoid_pacing(int fd) {
  constexpr char name[] = "reno";
  (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, sizeof name - 1);
}

SocketAddress local_address(int fd) {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (getsockname(fd, address.raw(), &address.size) != 0) address = {};
  return address;
}

SocketAddress remote_address(int fd) {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (getpeername(fd, address.raw(), &address.size) != 0) address = {};
  return address;
}

int pending_error(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

Status system_error(const std::string& what, int error) {
  const std::string text = error == ECONNREFUSED ? "refused: nobody listens there"
                           : error == ECONNRESET ? "reset by the other side"
                                                 : std::generic_category().message(error);
  return {Code::io, what + ": " + text};
}

}  // namespace pyccl::transport::tcp
