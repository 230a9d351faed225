// Binding and accepting; see listener.hpp.
#include "transport/tcp/listener.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "transport/tcp/stream.hpp"

namespace pyccl::transport::tcp {

namespace {

constexpr int backlog = 1024;
constexpr int accepts_per_turn = 64;

FileDescriptor open_reserve() { return FileDescriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

Status listen_error(const std::string& address, int error) {
  if (error == EADDRINUSE) {
    return {Code::address_in_use, "address " + address + " is already in use"};
  }
  return system_error("listening on " + address, error);
}

}  // namespace

Result<std::unique_ptr<Listener>> TcpListener::open(Poller& poller, const std::string& address,
                                                    Duration silence_limit,
                                                    AcceptObserver* observer) {
  Result<SocketAddress> parsed = parse_address(address);
  if (!parsed.ok()) return parsed.status();
  const SocketAddress& to = parsed.value();
  FileDescriptor fd = make_socket(to.family());
  if (!fd.valid()) return listen_error(address, errno);
  const int on = 1;
  (void)setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  // [::] takes IPv4 too, whatever the system's default: a peer of a coordinator with addresses of
  // both families can't tell yet which one the others will come by.
  if (to.family() == AF_INET6) {
    const int only = 0;
    (void)setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only);
  }
  if (is_loopback(to)) avoid_pacing(fd.get());  // what it accepts inherits that
  if (::bind(fd.get(), to.raw(), to.size) != 0 || ::listen(fd.get(), backlog) != 0) {
    return listen_error(address, errno);
  }
  return std::unique_ptr<Listener>(
      std::make_unique<TcpListener>(poller, std::move(fd), silence_limit, observer));
}

TcpListener::TcpListener(Poller& poller, FileDescriptor fd, Duration silence_limit,
                         AcceptObserver* observer)
    : poller_(poller),
      fd_(std::move(fd)),
      silence_limit_(silence_limit),
      observer_(observer),
      reserve_(open_reserve()) {
  poller_.watch(fd_.get(), this, true, false);
}

TcpListener::~TcpListener() { poller_.unwatch(fd_.get()); }

void TcpListener::on_ready(bool, bool, bool) {
  Life::Watch watch(life_);
  for (int i = 0; i < accepts_per_turn && !watch.over(); ++i) {
    SocketAddress remote;
    remote.size = sizeof remote.storage;
    FileDescriptor fd(
        ::accept4(fd_.get(), remote.raw(), &remote.size, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd.valid()) {
      if (errno == ECONNABORTED || errno == EINTR) continue;
      if (errno == EMFILE || errno == ENFILE) refuse_one();
      return;
    }
    observer_->on_accepted(
        std::make_unique<TcpStream>(poller_, std::move(fd), remote, silence_limit_));
  }
}

// The process has no descriptor left. The one kept for this case lets us turn the caller away;
// otherwise it would wait, and the loop would be called again and again.
void TcpListener::refuse_one() {
  reserve_.reset();
  FileDescriptor(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)).reset();
  reserve_ = open_reserve();
}

}  // namespace pyccl::transport::tcp
