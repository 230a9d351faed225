// Makes streams and listeners; see network.hpp.
#include "transport/tcp/network.hpp"

#include "transport/tcp/listener.hpp"
#include "transport/tcp/stream.hpp"

namespace pyccl::transport::tcp {

TcpNetwork::TcpNetwork(Poller& poller, const TcpOptions& options)
    : poller_(poller), options_(options) {}

TcpNetwork::~TcpNetwork() = default;

std::unique_ptr<Stream> TcpNetwork::dial(const std::string& address, StreamObserver* observer) {
  return std::make_unique<TcpStream>(poller_, address, options_.silence_limit, observer);
}

Result<std::unique_ptr<Listener>> TcpNetwork::listen(const std::string& address,
                                                     AcceptObserver* observer) {
  return TcpListener::open(poller_, address, options_.silence_limit, observer);
}

}  // namespace pyccl::transport::tcp
