// The life of a socket; see stream.hpp.
#include "transport/tcp/stream.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "transport/tcp/measure.hpp"

namespace pyccl::transport::tcp {

namespace {

constexpr std::size_t parts_max = 64;  // of one system call; more would only be written later
const char* const ended_text = "closed by the other side";

bool would_block(int error) {
  return error == EAGAIN || error == EWOULDBLOCK || error == EINTR || error == ENOBUFS ||
         error == ENOMEM;
}

template <class View>
std::size_t to_vectors(std::span<const View> parts, std::array<iovec, parts_max>& vectors) {
  const std::size_t count = std::min(parts.size(), parts_max);
  for (std::size_t i = 0; i < count; ++i) {
    vectors[i].iov_base = const_cast<std::byte*>(parts[i].data());
    vectors[i].iov_len = parts[i].size();
  }
  return count;
}

}  // namespace

TcpStream::TcpStream(Poller& poller, const std::string& address, Duration silence_limit,
                     StreamObserver* observer)
    : poller_(poller), observer_(observer), state_(State::connecting), remote_text_(address) {
  Status status = start(silence_limit);
  if (!status.ok()) fail(std::move(status));
}

TcpStream::TcpStream(Poller& poller, FileDescriptor fd, const SocketAddress& remote,
                     Duration silence_limit)
    : poller_(poller), fd_(std::move(fd)), observer_(nullptr), state_(State::open) {
  set_stream_options(fd_.get(), silence_limit);
  opened(remote);
  update_watch();
}

TcpStream::~TcpStream() { close(); }

Status TcpStream::start(Duration silence_limit) {
  Result<SocketAddress> address = parse_address(remote_text_);
  if (!address.ok()) return {Code::io, address.status().reason()};
  const SocketAddress& to = address.value();
  fd_ = make_socket(to.family());
  if (!fd_.valid()) return system_error("no socket for " + remote_text_, errno);
  set_stream_options(fd_.get(), silence_limit);
  if (is_loopback(to)) avoid_pacing(fd_.get());
  if (::connect(fd_.get(), to.raw(), to.size) != 0 && errno != EINPROGRESS) {
    return system_error("connecting to " + remote_text_, errno);
  }
  poller_.watch(fd_.get(), this, false, true);
  return {};
}

void TcpStream::opened(const SocketAddress& remote) {
  const SocketAddress local = tcp::local_address(fd_.get());
  remote_text_ = to_text(remote);
  same_host_ = equal_hosts(local, remote) || is_loopback(remote);
  if (!same_host_) limit_unsent(fd_.get());
}

IoResult TcpStream::write(std::span<const ByteView> parts) {
  if (state_ == State::closed) return {0, Status(Code::closed, "the stream is closed")};
  std::array<iovec, parts_max> vectors;
  msghdr message{};
  message.msg_iov = vectors.data();
  message.msg_iovlen = to_vectors(parts, vectors);
  const ssize_t count = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  if (count >= 0) return {static_cast<std::size_t>(count), {}};
  if (would_block(errno)) return {};
  const int error = errno;
  // Whatever it was, the reading side comes to an end and tells the observer.
  (void)::shutdown(fd_.get(), SHUT_WR);
  return {0, system_error("writing to " + remote_text_, error)};
}

IoResult TcpStream::read(std::span<const MutableByteView> parts) {
  if (state_ == State::closed) return {0, Status(Code::closed, "the stream is closed")};
  std::array<iovec, parts_max> vectors;
  const auto used = static_cast<int>(to_vectors(parts, vectors));
  const ssize_t count = ::readv(fd_.get(), vectors.data(), used);
  if (count > 0) return {static_cast<std::size_t>(count), {}};
  if (count == 0) return {0, Status(Code::io, ended_text)};
  if (would_block(errno)) return {};
  return {0, system_error("reading from " + remote_text_, errno)};
}

std::optional<WayMeasurement> TcpStream::measurement() const {
  if (state_ != State::open || same_host_) return std::nullopt;
  return measurement_of(fd_.get());
}

void TcpStream::watch_writable(bool on) {
  if (wants_writable_ == on) return;
  wants_writable_ = on;
  update_watch();
}

void TcpStream::watch_readable(bool on) {
  if (wants_readable_ == on) return;
  wants_readable_ = on;
  update_watch();
}

void TcpStream::update_watch() {
  if (state_ == State::open) poller_.watch(fd_.get(), this, wants_readable_, wants_writable_);
}

void TcpStream::end_writes() {
  if (state_ == State::open) (void)::shutdown(fd_.get(), SHUT_WR);
}

void TcpStream::close() {
  if (posted_failure_) poller_.cancel_post(this);
  posted_failure_.reset();
  state_ = State::closed;
  if (!fd_.valid()) return;
  poller_.unwatch(fd_.get());
  fd_.reset();
}

void TcpStream::fail(Status reason) {
  close();
  posted_failure_ = std::move(reason);
  poller_.post(this);
}

void TcpStream::on_posted() { end(std::move(*posted_failure_)); }

void TcpStream::end(Status status) {
  posted_failure_.reset();
  close();
  if (observer_ != nullptr) observer_->on_failed(std::move(status));
}

void TcpStream::finish_connecting() {
  const int error = pending_error(fd_.get());
  if (error != 0) return end(system_error("connecting to " + remote_text_, error));
  const SocketAddress remote = tcp::remote_address(fd_.get());
  const SocketAddress local = tcp::local_address(fd_.get());
  // Dialling a port of one's own host that nobody listens on can meet oneself there.
  if (to_text(remote) == to_text(local)) {
    return end(system_error("connecting to " + remote_text_, ECONNREFUSED));
  }
  opened(remote);
  state_ = State::open;
  update_watch();
  if (observer_ != nullptr) observer_->on_connected();
}

void TcpStream::on_ready(bool readable, bool writable, bool failed) {
  if (state_ == State::connecting) return finish_connecting();
  if (observer_ == nullptr) return;
  if (failed && !wants_readable_) {
    const int error = pending_error(fd_.get());
    return end(error != 0 ? system_error("connection to " + remote_text_, error)
                          : Status(Code::io, ended_text));
  }
  Life::Watch watch(life_);
  if (wants_readable_ && (readable || failed)) observer_->on_readable();
  if (watch.over() || state_ != State::open) return;
  if (wants_writable_ && writable && !failed) observer_->on_writable();
}

}  // namespace pyccl::transport::tcp
