// The networks of csrc/transport under the conformance suite.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "runtime/reactor.hpp"
#include "transport/conformance.hpp"
#include "transport/inproc/network.hpp"
#include "transport/tcp/network.hpp"

namespace pyccl::transport::test {

class TcpHarness final : public Harness {
 public:
  explicit TcpHarness(std::string host) : network_(reactor_), host_(std::move(host)) {}
  Network& network() override { return network_; }
  std::string host() const override { return host_; }
  Time now() const override { return reactor_.now(); }
  void step(Time deadline) override { reactor_.run_once(deadline); }

 private:
  runtime::Reactor reactor_;
  tcp::TcpNetwork network_;
  std::string host_;
};

// Its clock moves by a microsecond a turn, and to the deadline when nothing is left to do.
class InprocHarness final : public Harness {
 public:
  explicit InprocHarness(std::uint32_t pipe_bytes)
      : network_(pipe_bytes), large_(pipe_bytes * 1000) {}
  Network& network() override { return network_; }
  std::string host() const override { return "inproc:0"; }
  Time now() const override { return now_; }
  void step(Time deadline) override { now_ = network_.pump() ? now_ + 1us : deadline; }
  std::uint32_t large() const override { return std::min(large_, Harness::large()); }

 private:
  inproc::InprocNetwork network_;
  std::uint32_t large_;
  Time now_;
};

inline std::unique_ptr<Harness> make_tcp_v4() {
  return std::make_unique<TcpHarness>("127.0.0.1:0");
}
inline std::unique_ptr<Harness> make_tcp_v6() { return std::make_unique<TcpHarness>("[::1]:0"); }
inline std::unique_ptr<Harness> make_inproc() { return std::make_unique<InprocHarness>(65536); }
inline std::unique_ptr<Harness> make_tiny_inproc() { return std::make_unique<InprocHarness>(37); }

}  // namespace pyccl::transport::test
