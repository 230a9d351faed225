// Late or dead? What is known of one peer's control connection, and when it counts as gone.
//
// A process that dies must be noticed in milliseconds, and a connection that breaks must not cost a
// peer. So a broken connection is suspicion: somebody dials the peer; refused means that nobody
// listens there any more, dead at once; anything else gives the peer a grace to come back. Silence
// on a connection that seems to stand is death after the heartbeat limit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/time.hpp"
#include "protocol/limits.hpp"

namespace pyccl::protocol {

enum class ProbeResult : std::uint8_t {
  reachable,    // a process listens there
  refused,      // the host is there and nobody listens: the process is gone
  unreachable,  // no answer; says nothing
};

class FaultDetector {
 public:
  explicit FaultDetector(Time now) : since_(now) {}

  void connected(Time now);
  void heard(Time now);
  void disconnected(Time now);
  void probed(ProbeResult result);
  // The one who judges has slept: nobody else is to blame for that time.
  void forgive(Duration slept);

  bool is_connected() const { return connected_; }
  // Why the peer counts as dead, if it does.
  std::optional<std::string> death(Time now, const Timing& timing) const;
  Time next_deadline(const Timing& timing) const;

 private:
  bool connected_ = true;
  bool refused_ = false;
  Time since_;  // last heard, or when the connection broke
};

}  // namespace pyccl::protocol
