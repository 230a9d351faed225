// Shared memory under the conformance suite: streams that are dialled and accepted over TCP and
// have become streams through memory before anybody else sees them.
#pragma once

#include <memory>
#include <string>

#include "runtime/reactor.hpp"
#include "transport/conformance.hpp"
#include "transport/shm/network.hpp"
#include "transport/tcp/network.hpp"

namespace pyccl::transport::test {

class MeetingNetwork final : public Network {
 public:
  MeetingNetwork(Network& outer, SharedMemory& memory) : outer_(outer), memory_(memory) {}

  std::unique_ptr<Stream> dial(const std::string& address, StreamObserver* observer) override;
  Result<std::unique_ptr<Listener>> listen(const std::string& address,
                                           AcceptObserver* observer) override;

 private:
  Network& outer_;
  SharedMemory& memory_;
};

class ShmHarness final : public Harness {
 public:
  explicit ShmHarness(const shm::ShmOptions& options)
      : tcp_(reactor_),
        shm_(reactor_, tcp_, options),
        network_(tcp_, *shm_.shared_memory()),
        instant_(options.borrow) {}
  Network& network() override { return network_; }
  std::string host() const override { return "127.0.0.1:0"; }
  Time now() const override { return reactor_.now(); }
  void step(Time deadline) override { reactor_.run_once(deadline); }
  bool instant() const override { return instant_; }
  SharedMemory& memory() { return *shm_.shared_memory(); }

 private:
  runtime::Reactor reactor_;
  tcp::TcpNetwork tcp_;
  shm::ShmNetwork shm_;
  MeetingNetwork network_;
  bool instant_;
};

}  // namespace pyccl::transport::test
