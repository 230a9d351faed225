// Everything a coordinator does, without waiting and without a thread: the Coordinator machine, its
// connections over a Network, its probes and its state store. The simulator runs the same code.
//
// The host calls in from one thread: stream callbacks (through the Network that it supplies), and
// tick() when next_deadline() has come; then end_turn(), and drains `log`.
//
// A view that can't be written must not be sent. If the store fails, the coordinator behaves as if
// it had crashed at that point: it drops all connections and everything it was about to say, and
// tries again every second to begin anew from the last state that was written, with the next
// incarnation. Members go on by themselves meanwhile; that path is the one they know anyway.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "protocol/coordinator.hpp"
#include "transport/connection.hpp"
#include "transport/network.hpp"

namespace pyccl::engine {

// Where a coordinator's state outlives it.
class StateStore {
 public:
  virtual ~StateStore() = default;
  // Durable when it returns ok; the former or the new state when it fails. May block.
  virtual Status write(const protocol::CoordinatorState&) = 0;
};

struct CoordinatorHostOptions {
  std::string listen = "127.0.0.1:0";  // numeric
  protocol::CoordinatorOptions machine;
  std::optional<protocol::CoordinatorState> recovered;
  Duration hello_limit = 5s;     // from a connection's begin to its first message
  Duration probe_limit = 1s;     // no answer after that says nothing about the peer
  Duration farewell_limit = 1s;  // for the last words to reach the other side
};

struct CoordinatorLog {
  LogLevel level = LogLevel::info;
  std::string text;
};

// Connections that have not said who they are. Beyond this the oldest is closed: a true peer says
// Hello at once, so a flood of strangers can't keep it out for long.
inline constexpr std::size_t strangers_max = 256;

class CoordinatorHost final : private transport::AcceptObserver {
 public:
  // The network, the clock and the store outlive the host.
  static Result<std::unique_ptr<CoordinatorHost>> open(const CoordinatorHostOptions&,
                                                       transport::Network&, const Clock&,
                                                       StateStore&);
  ~CoordinatorHost() override;

  void tick();
  std::optional<Time> next_deadline() const;
  void end_turn();

  std::string address() const;  // of the listener
  std::uint32_t incarnation() const { return incarnation_; }
  // None while the state can't be written.
  const protocol::Coordinator* machine() const { return machine_.get(); }
  std::size_t connection_count() const;

  std::vector<CoordinatorLog> log;

 private:
  struct Link;
  struct Dial;
  struct Probing;

  CoordinatorHost(const CoordinatorHostOptions&, transport::Network&, const Clock&, StateStore&);

  void begin();  // a machine from the last durable state
  void on_accepted(std::unique_ptr<transport::Stream>) override;
  void on_message(Link&, ByteView body);
  void on_closed(Link&, const Status&);
  void bind(Link&, PeerId);
  void turn_away(Link&, const Status&);
  void farewell(std::unique_ptr<Link>);
  std::unique_ptr<Link> take(Link&);

  void run_effects();
  void apply(protocol::SendTo&);
  void apply(protocol::Persist&);
  void apply(protocol::Probe&);
  void apply(protocol::Disconnect&);
  void apply(protocol::CoordinatorNote&);
  void conclude(PeerId, protocol::ProbeResult);
  void begin_again_later(const Status&);

  void say(LogLevel, std::string);
  void say_of_stranger(const std::string&);

  const CoordinatorHostOptions options_;
  transport::Network& network_;
  const Clock& clock_;
  StateStore& store_;
  std::unique_ptr<transport::Listener> listener_;

  std::unique_ptr<protocol::Coordinator> machine_;
  std::optional<protocol::CoordinatorState> durable_;
  std::uint32_t incarnation_ = 0;
  std::optional<Time> begin_again_at_;
  bool running_effects_ = false;

  std::list<std::unique_ptr<Link>> strangers_;  // oldest first
  std::map<PeerId, std::unique_ptr<Link>> bound_;
  std::list<std::unique_ptr<Link>> leaving_;  // saying their last words
  std::map<PeerId, std::unique_ptr<Probing>> probes_;
  // Ended inside a callback of their own; destroyed when the turn is over.
  std::vector<std::unique_ptr<Link>> ended_links_;
  std::vector<std::unique_ptr<Probing>> ended_probes_;

  // Strangers may be many: their lines are counted beyond a few per second.
  Time stranger_window_{};
  std::uint32_t stranger_lines_ = 0;
  std::uint64_t stranger_lines_held_ = 0;
};

}  // namespace pyccl::engine
