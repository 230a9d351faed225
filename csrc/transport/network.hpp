// Byte streams between processes: what a stream transport has to offer, and all that the simulator
// replaces.
//
// Everything here belongs to one loop: no call blocks, no call is made from another thread, and
// observers are called from the loop only, never from inside a call into the stream that they
// observe. A stream may be closed or destroyed from inside a callback, its own included; after that
// its observer is not called again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/bytes.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "pyccl.h"

namespace pyccl::transport {

// How a read or write went: bytes moved (0: would block now), or why the stream is finished. An
// orderly end of the other side is a failure too (Code::io, "closed by the other side"). A failed
// write leaves the reading side to tell: on_readable goes on until a read has delivered what had
// arrived and then fails as well, so that a last word of the other side is heard.
struct IoResult {
  std::size_t bytes = 0;
  Status status;
};

class StreamObserver {
 public:
  virtual ~StreamObserver() = default;
  virtual void on_connected() = 0;  // a dialled stream is open; never for an accepted one
  virtual void
  on_readable() = 0;  // again and again while there is something to read (level, not edge)
  virtual void
  on_writable() = 0;  // again and again while there is room and watch_writable(true) holds
  virtual void on_failed(Status) = 0;  // could not connect, reset, ...; nothing follows
};

class Lending;

// What the traffic on a way has shown of it so far.
struct WayMeasurement {
  Duration round_trip{};        // the shortest one; zero: none has been seen yet
  std::uint64_t delivered = 0;  // bytes that have arrived at the other end
  bool full = false;            // it has had as much to carry as it could lately,
  bool waiting = false;         // and has so now: something waits for what is before it
};

class Stream {
 public:
  virtual ~Stream() = default;  // closes
  virtual void set_observer(StreamObserver*) = 0;
  virtual IoResult write(std::span<const ByteView> parts) = 0;
  virtual IoResult read(std::span<const MutableByteView> parts) = 0;
  virtual void watch_writable(bool) = 0;
  virtual void watch_readable(bool) = 0;  // on from the start
  // Nothing more will be written; the other side reads what was, and then the end. Reading goes on.
  virtual void end_writes() = 0;
  virtual void close() = 0;  // at once, unsent bytes are lost; idempotent
  virtual void fail(
      Status reason) = 0;  // as close(), and the observer hears on_failed(reason) from the loop
  virtual std::string remote_address() const = 0;
  virtual bool same_host() const = 0;  // both ends on one machine: bytes cross no wire
  // Nothing where nothing is known: bytes cross no wire, or nobody counts.
  virtual std::optional<WayMeasurement> measurement() const { return std::nullopt; }
  // Payloads by reference, see lending.hpp; nullptr: it has bytes only.
  virtual Lending* lending() { return nullptr; }
};

class AcceptObserver {
 public:
  virtual ~AcceptObserver() = default;
  virtual void on_accepted(std::unique_ptr<Stream>) = 0;
};

class Listener {
 public:
  virtual ~Listener() = default;            // stops listening
  virtual std::string address() const = 0;  // with the port that was really bound
};

class SharedMemory;

// Which transports may be used between peers.
enum class Choice : int {
  automatic = PYCCL_TRANSPORT_AUTO,  // shared memory where both sides prove to have it, else TCP
  tcp = PYCCL_TRANSPORT_TCP,
};

// Addresses are "host:port" with a numeric host, "[v6]:port" for IPv6; names are resolved before
// they get here.
class Network {
 public:
  virtual ~Network() = default;
  // Never fails at once: the outcome comes to the observer (Code::io; text says "refused" when
  // nobody listens there).
  virtual std::unique_ptr<Stream> dial(const std::string& address, StreamObserver*) = 0;
  virtual Result<std::unique_ptr<Listener>> listen(const std::string& address, AcceptObserver*) = 0;
  // Streams to processes that this one shares memory with; nullptr: none.
  virtual SharedMemory* shared_memory() { return nullptr; }
};

}  // namespace pyccl::transport
