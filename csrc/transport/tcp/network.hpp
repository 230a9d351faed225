// Byte streams over TCP, IPv4 and IPv6.
#pragma once

#include <memory>
#include <string>

#include "base/time.hpp"
#include "transport/network.hpp"
#include "transport/poller.hpp"

namespace pyccl::transport::tcp {

struct TcpOptions {
  // Sent bytes that nobody confirms for so long break the connection; a silent one is asked.
  Duration silence_limit = 10s;
};

class TcpNetwork final : public Network {
 public:
  // The poller outlives the network and all that comes from it.
  explicit TcpNetwork(Poller& poller, const TcpOptions& options = {});
  ~TcpNetwork() override;

  std::unique_ptr<Stream> dial(const std::string& address, StreamObserver* observer) override;
  Result<std::unique_ptr<Listener>> listen(const std::string& address,
                                           AcceptObserver* observer) override;

 private:
  Poller& poller_;
  TcpOptions options_;
};

}  // namespace pyccl::transport::tcp
