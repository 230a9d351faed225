// The network of the protocol world: connections between processes on machines. A connection is
// first in, first out; it can be slow, stand still in one direction, break with the loss of an
// unknown tail, and be believed alive by one end for a while.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/prng.hpp"
#include "base/time.hpp"
#include "protocol/messages.hpp"
#include "sim/clock.hpp"
#include "sim/protocol/swarm.hpp"

namespace pyccl::sim {

using MachineId = int;  // 0 is the coordinator's

// A piece of the data of an operation: its value is a function of who sends it and for what.
struct Contribution {
  OpId op;
  std::uint32_t piece = 0;
  std::uint64_t value = 0;
};

struct Receipt {
  OpId op;
  std::uint32_t piece = 0;
};

using Payload = std::variant<protocol::Message, Contribution, Receipt>;
using PayloadPointer = std::shared_ptr<const Payload>;

class Network;

// One end of a connection, as its process sees it. Callbacks come through the process, which may be
// paused, so a callback after close() is possible and is dropped there.
struct ConnectionEnd {
  std::function<void(const PayloadPointer&)> receive;
  std::function<void()> broken;  // once; not after the end's own close
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(Network& network, MachineId dialler, MachineId acceptor);

  void attach(int end, ConnectionEnd callbacks);
  // True once the payload has reached the other process.
  std::shared_ptr<bool> send(int from_end, PayloadPointer payload);
  // Orderly: what was sent before still arrives, and then the other end hears of it.
  void close(int end);
  // The process of this end is gone. With `tail_lost` the last of what it sent goes with it; with a
  // silence the other end hears of it only then.
  void abort(int end, bool tail_lost, Duration silence);
  // Breaks for both, which hear of it at different times.
  void reset(Duration notice_dialler, Duration notice_acceptor);

  bool is_open(int end) const { return ends_[end].open; }
  MachineId machine(int end) const { return ends_[end].machine; }
  void pump(int to_end);
  // Standing data goes on only now and then: its sender tries again less and less often.
  void stall(int to_end, Time until) { ends_[to_end].stalled_until = until; }
  bool fifo_only = true;  // control connections: what is held stops all behind it

 private:
  struct InFlight {
    Time due;
    PayloadPointer payload;  // none: the other end has closed
    std::shared_ptr<bool> arrived;
  };
  struct End {
    MachineId machine = 0;
    bool open = true;
    bool cut = false;  // nothing reaches this end any more
    bool pumping = false;
    Time last_due;
    Time stalled_until;
    std::deque<InFlight> incoming;
    ConnectionEnd callbacks;
  };

  void notice_broken(int end, Duration delay);

  Network& network_;
  End ends_[2];
};

class Network {
 public:
  Network(Clock& clock, Prng prng, const Swarm& swarm);

  // Who listens on a machine. `accept` may refuse by returning false.
  struct Listener {
    bool machine_up = false;
    bool listening = false;
    std::function<bool(const std::shared_ptr<Connection>&, PeerId dialler, PeerId wanted)> accept;
  };
  enum class DialResult { connected, refused, unreachable };
  using Dialled = std::function<void(DialResult, std::shared_ptr<Connection>)>;

  std::map<MachineId, Listener> listeners;

  void dial(MachineId from, PeerId dialler, MachineId to, PeerId wanted, Dialled done);
  // Like a dial that goes no further.
  void probe(MachineId from, MachineId to, std::function<void(DialResult)> done);

  void block(MachineId from, MachineId to);
  void unblock(MachineId from, MachineId to);
  void block_for(MachineId from, MachineId to, Duration time);
  bool blocked(MachineId from, MachineId to) const { return blocks_.contains({from, to}); }
  void heal();

  Duration latency();
  Clock& clock() { return clock_; }
  Prng& prng() { return prng_; }
  void remember(const std::shared_ptr<Connection>& connection);
  std::vector<std::shared_ptr<Connection>> connections();
  void pump_all();

  // For scenarios: true if the payload is to be held back now.
  std::function<bool(MachineId from, MachineId to, const Payload&)> holds;
  void set_aside(std::shared_ptr<Connection> connection, int from_end, PayloadPointer payload);
  void release();

 private:
  DialResult result_of(MachineId from, MachineId to) const;
  void give_up_lanes(MachineId from, MachineId to, std::uint64_t block);

  struct Held {
    std::shared_ptr<Connection> connection;
    int from_end;
    PayloadPointer payload;
  };

  Clock& clock_;
  Prng prng_;
  const Swarm& swarm_;
  struct Block {
    int count = 0;
    std::uint64_t ordinal = 0;
  };
  std::map<std::pair<MachineId, MachineId>, Block> blocks_;
  std::uint64_t blocks_made_ = 0;
  std::vector<std::weak_ptr<Connection>> connections_;
  std::vector<Held> held_;
};

}  // namespace pyccl::sim
