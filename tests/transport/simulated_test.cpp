// The conformance suite over the simulator's network: what the engine meets there is what it meets
// on sockets.
#include <doctest/doctest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "sim/clock.hpp"
#include "sim/network.hpp"
#include "transport/conformance.hpp"

namespace pyccl::transport::test {

namespace {

sim::NetworkOptions options() {
  sim::NetworkOptions options;
  options.bytes_per_second = 200'000'000;
  options.buffer_bytes = 64 * 1024;
  return options;
}

// Two hosts: one dials, the other one listens.
class SimulatedHarness final : public Harness, private Network {
 public:
  explicit SimulatedHarness(std::uint64_t seed) : network_(clock_, seed, options()) {}
  Network& network() override { return *this; }
  std::string host() const override { return "10.0.0.2:0"; }
  Time now() const override { return clock_.now(); }
  void step(Time deadline) override {
    if (!alarm_ || *alarm_ > deadline) {
      alarm_ = deadline;
      clock_.at(deadline, [this] { alarm_.reset(); });
    }
    clock_.step();
  }
  bool same_host() const override { return false; }
  std::uint32_t large() const override { return 1 << 18; }

 private:
  std::unique_ptr<Stream> dial(const std::string& address, StreamObserver* observer) override {
    return network_.host("10.0.0.1").dial(address, observer);
  }
  Result<std::unique_ptr<Listener>> listen(const std::string& address,
                                           AcceptObserver* observer) override {
    return network_.host("10.0.0.2").listen(address, observer);
  }

  sim::Clock clock_;
  sim::SimulatedNetwork network_;
  std::optional<Time> alarm_;
};

template <std::uint64_t seed>
std::unique_ptr<Harness> make_simulated() {
  return std::make_unique<SimulatedHarness>(seed);
}

}  // namespace

TEST_CASE("streams in the simulator") { stream_conformance(make_simulated<1>); }
TEST_CASE("connections in the simulator") { connection_conformance(make_simulated<2>); }
TEST_CASE("channels in the simulator") { channel_conformance(make_simulated<3>); }
TEST_CASE("faults in the simulator") { channel_fault_conformance(make_simulated<4>); }

}  // namespace pyccl::transport::test
