// A Peer on a reactor thread of its own: calls go in through a queue, handles come out. All methods
// may be called from any thread.
//
// A process that forks must not use the communicator in the child, where the thread does not exist:
// calls there end with Code::closed, and the child's copy is left alone when it is destroyed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "base/log.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "engine/request.hpp"
#include "protocol/limits.hpp"
#include "protocol/view.hpp"
#include "runtime/work.hpp"
#include "transport/network.hpp"

namespace pyccl::runtime {

struct ConnectOptions {
  std::string coordinator;  // "host:port", names are resolved
  std::string group = "default";
  protocol::Role role = protocol::Role::worker;
  std::uint32_t connections = 4;         // per peer, 1 to 64
  std::optional<std::string> listen;     // "host:port", ":0" by default
  std::optional<std::string> advertise;  // "host:port" that the others shall dial
  transport::Choice transport = transport::Choice::automatic;
  // How long whoever waits looks for what it waits for before it sleeps: to be woken takes longer
  // than a small operation, but looking keeps a processor busy.
  Duration spin = 0s;
  Duration timeout = 60s;  // until admitted
  protocol::Timing timing;
  LogSink log;  // called on the reactor's thread; may be empty
};

// What the caller may see of the view; changes only when a view is installed.
struct ViewSnapshot {
  Epoch epoch;
  Rank rank = -1;
  std::vector<PeerId> peers;  // of the own group, in rank order
  // This peer's way to each of them, as engine::StateSync wants it; 0: not known.
  std::vector<std::uint32_t> mb_per_s;
  std::size_t members_most = 0;  // that the group has ever had here
  std::size_t groups = 0;        // of the whole run
  bool ended = false;
  Status end_reason;
};

// What the caller does next with a Work that it gets: one that waits at once needs no other thread
// to be woken for it.
enum class Then { goes_on, waits };

class Communicator {
 public:
  // Resolves, listens and starts; admission() ends when the peer is a member, or with why not.
  static Result<std::unique_ptr<Communicator>> open(const ConnectOptions&);
  virtual ~Communicator() = default;  // close()

  virtual WorkPtr admission() = 0;
  // Any collective.
  virtual WorkPtr call(engine::Request, Duration timeout, Then then = Then::goes_on) = 0;
  virtual WorkPtr update(Duration timeout) = 0;
  virtual WorkPtr leave(Duration timeout) = 0;
  // See engine::Peer::cancel; the Work ends as described there.
  virtual void cancel(const WorkPtr&) = 0;
  virtual void close() = 0;  // joins the thread; open works end with Code::closed

  virtual ViewSnapshot view() const = 0;
  // update(), unless no operation of the whole group has been called since the last boundary, which
  // may have been the admission. The same on all members that call the same.
  virtual WorkPtr boundary(Duration timeout) = 0;
  // Only one thread at a time may be in a sync; false: another one is.
  virtual bool enter_sync() = 0;
  virtual void leave_sync() = 0;
  virtual PeerId peer() const = 0;
  virtual std::string address() const = 0;
};

}  // namespace pyccl::runtime
