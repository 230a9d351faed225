// The byte world: the whole engine of a coordinator and of some peers, on a virtual clock, over
// simulated streams. One thread and one seed, so every run can be repeated.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "sim/byte/checks.hpp"
#include "sim/byte/coordinator.hpp"
#include "sim/byte/history.hpp"
#include "sim/byte/peer.hpp"
#include "sim/byte/swarm.hpp"
#include "sim/clock.hpp"
#include "sim/network.hpp"
#include "sim/result.hpp"
#include "sim/trace.hpp"

namespace pyccl::sim {

class ByteWorld {
 public:
  ByteWorld(std::uint64_t seed, const ByteSwarm& swarm, Trace::Text text);
  ~ByteWorld();

  // A new life on this machine.
  std::shared_ptr<BytePeer> spawn(int machine);
  std::shared_ptr<BytePeer> peer_at(int machine) const;
  std::vector<std::shared_ptr<BytePeer>> living() const;
  std::string host_of(int machine) const;
  void restart_coordinator_later();

  void fail(std::string invariant, std::string text);
  bool running() const { return !failure_; }
  const std::optional<Failure>& failure() const { return failure_; }
  // Until the time, or until something failed.
  void run_until(Time end);
  RunResult result() const {
    return {failure_, trace.hash(), clock.now(), events_, commits, failures, views};
  }

  void say(const std::string& text) {
    if (trace.wants_text()) trace.line(clock.now(), text);
  }

  const std::uint64_t seed;
  const ByteSwarm swarm;
  const protocol::Timing timing;
  Clock clock;
  Trace trace;
  // One stream for each concern: a new draw in one does not shift the others.
  Prng identities;
  Prng faults;
  Prng users;
  Prng crash_points;
  SimulatedNetwork network;
  ByteHistory history;
  ByteChecks checks;
  ByteCoordinator coordinator;
  bool faults_on = false;
  // Up to when something is wrong: with the network, or with who is thought to live.
  Time trouble;
  Time doubt;
  void trouble_until(Time end) { trouble = std::max(trouble, end); }
  void doubt_for(Duration time) { doubt = std::max(doubt, clock.now() + time); }
  std::uint64_t next_call = 1;
  // For the record.
  std::uint64_t commits = 0;
  std::uint64_t failures = 0;
  std::uint64_t views = 0;

 private:
  std::map<int, std::shared_ptr<BytePeer>> peers_;
  std::uint64_t events_ = 0;
  std::optional<Failure> failure_;
};

}  // namespace pyccl::sim
