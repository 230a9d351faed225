// Everything a peer does, without waiting and without asking what time it is beyond its host's
// turn: the Member machine, the mesh of channels that follows the view, and the executor of each
// open operation.
//
// The host calls in from one thread: user calls, stream callbacks (through the Network that it
// supplies), tick() when next_deadline() has come; then end_turn(), which writes what has gathered,
// and drains `events`.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "engine/request.hpp"
#include "protocol/limits.hpp"
#include "protocol/messages.hpp"
#include "protocol/view.hpp"
#include "transport/network.hpp"

namespace pyccl::engine {

// The host's name for a call; comes back in Finished.
using Ticket = std::uint64_t;

struct PeerOptions {
  PeerId peer;
  std::vector<std::string> coordinator;  // addresses to try, numeric "host:port"
  std::string group = "default";
  protocol::Role role = protocol::Role::worker;
  std::string listen = "0.0.0.0:0";  // where other peers reach this one
  std::vector<std::string>
      advertise;  // what to tell them; empty: the listener's address as the coordinator sees it
  std::uint32_t connections = 4;  // per peer
  std::uint32_t segment_bytes = 256 * 1024;
  std::uint64_t measured_bytes_min = 64 * 1024;  // to a peer, between two looks at its link
  Time connect_deadline = never;                 // to be a member; means nothing from then on
  protocol::Timing timing;
  std::uint64_t seed = 0;  // jitter of redialling
  transport::Choice transport = transport::Choice::automatic;
};

struct ViewChanged {
  protocol::View view;
};  // the first one is the admission
struct Finished {
  Ticket ticket = 0;
  Status status;
  OperationInfo info;
  std::optional<OpKey> op;  // none: no operation, or one that was refused before it had a number
};
struct Ended {
  Status status;
};  // nothing follows; open tickets have been finished before
struct LinksMeasured {
  std::vector<protocol::MeasuredLink> links;
};  // all that the traffic has shown so far
struct Log {
  LogLevel level = LogLevel::info;
  std::string text;
};
using PeerEvent = std::variant<ViewChanged, Finished, Ended, LinksMeasured, Log>;

// What a peer holds at present.
struct PeerLoad {
  std::size_t operations = 0;          // open, of this peer's caller
  std::size_t slots = 0;               // of the staging pool, in use
  std::uint64_t stash_bytes = 0;       // early data of all others
  std::uint64_t stash_bytes_most = 0;  // of one peer
};

class Peer {
 public:
  static Result<std::unique_ptr<Peer>> open(const PeerOptions&, transport::Network&, const Clock&);
  virtual ~Peer() = default;

  // Each ends in one Finished, at once if the request is refused.
  virtual void call(Ticket, Request) = 0;
  virtual void update(Ticket, Time deadline) = 0;
  virtual void leave(Ticket, Time deadline) = 0;
  // The caller gives an operation up: it ends with Code::cancelled and leaves its memory as it was,
  // unless it can't be stopped any more (this member has said Done); then it ends as the others end
  // it. Of an update(): it ends so at once, though a view that is made already comes all the same.
  // A leave() can't be given up.
  virtual void cancel(Ticket) = 0;
  // At once and without goodbye; the others see a death. Open tickets end with Code::closed.
  virtual void close() = 0;

  virtual void tick() = 0;
  virtual std::optional<Time> next_deadline() const = 0;
  virtual void end_turn() = 0;

  virtual const protocol::View& view() const = 0;
  virtual std::string address() const = 0;  // of the listener
  // Which operation an open call has become.
  virtual std::optional<OpKey> key_of(Ticket) const = 0;
  // Whether the fate of a cancelled operation is open: its number may become free again.
  virtual bool undecided() const = 0;
  // Whether operations of the whole group have got numbers since the last boundary.
  virtual bool boundary_due() const = 0;
  virtual PeerLoad load() const = 0;

  std::vector<PeerEvent> events;
};

}  // namespace pyccl::engine
