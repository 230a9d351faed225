// The protocol world: one coordinator and some peers, real machines of both kinds, on a virtual
// clock and a bad network. One thread and one seed, so every run can be repeated.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "protocol/codec.hpp"
#include "protocol/limits.hpp"
#include "sim/clock.hpp"
#include "sim/protocol/checks.hpp"
#include "sim/protocol/coordinator_node.hpp"
#include "sim/protocol/network.hpp"
#include "sim/protocol/peer_node.hpp"
#include "sim/protocol/swarm.hpp"
#include "sim/result.hpp"
#include "sim/trace.hpp"

namespace pyccl::sim {

// As scenarios call it.
std::string name_of(Code code);

class World {
 public:
  World(std::uint64_t seed, const Swarm& swarm, Trace::Text text);
  ~World();

  // A new life on this machine. What it calls is up to its caller; none: a script's.
  std::shared_ptr<PeerNode> spawn(MachineId machine, const std::string& group);
  std::shared_ptr<PeerNode> peer_at(MachineId machine) const;
  std::vector<std::shared_ptr<PeerNode>> living() const;
  std::string group_of(MachineId machine) const;
  std::string short_name(PeerId peer) const;
  void crash_coordinator_for_a_while();

  std::uint64_t events() const { return events_; }
  void fail(std::string invariant, std::string text);
  bool running() const { return !failure_; }
  const std::optional<Failure>& failure() const { return failure_; }
  // Until the time, or until something failed.
  void run_until(Time end);

  template <class... Parts>
  void say(const Parts&... parts) {
    if (!trace.wants_text()) return;
    std::string text;
    ((text += as_text(parts)), ...);
    trace.line(clock.now(), text);
  }
  void say_message(const std::string& where, PeerId from, const protocol::Message& message);

  // What goes on the wire; in some runs through the codec.
  PayloadPointer payload(const protocol::Message& message) const;
  std::uint64_t value_of(PeerId peer, OpId op, std::uint32_t piece) const;
  double weight_of(PeerId peer, std::uint32_t tag) const;
  Duration half_open_time();
  Duration work_time();

  const Swarm swarm;
  const protocol::Timing timing;
  Clock clock;
  Trace trace;
  // One stream for each concern: a new draw in one does not shift the others.
  Prng identities;
  Prng faults;
  Prng users;
  Prng crash_points;
  Network network;
  Checks checks;
  CoordinatorNode coordinator;
  int groups;
  std::map<MachineId, int> routes;  // from where it is seen to come now, by its number
  bool faults_on = false;
  bool stopping = false;  // users end, each at its number
  Time healed = never;    // when the last fault ended
  std::uint64_t commits = 0;
  std::uint64_t failures = 0;
  std::uint64_t views = 0;

 private:
  static std::string as_text(const std::string& text) { return text; }
  static std::string as_text(const char* text) { return text; }
  static std::string as_text(std::uint64_t number) { return std::to_string(number); }

  std::map<MachineId, std::shared_ptr<PeerNode>> peers_;
  std::map<PeerId, std::string> names_;
  std::uint64_t events_ = 0;
  std::optional<Failure> failure_;
};

}  // namespace pyccl::sim
