// All connections to one peer as one lane. Messages and segments go out on whichever connection can
// write, so unequal flows balance themselves; what a dying connection had not got acknowledged goes
// out again on the others.
//
// Delivery is at least once and without order: receivers are idempotent, since a frame names its
// operation and its place in it. That is also why a channel needs no memory of what it has
// received.
//
// Nothing is copied on its way out but messages. Nothing blocks. One loop owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "transport/connection.hpp"

namespace pyccl::transport {

// Names one incoming segment while its payload is being read; 0 is none. Never used twice.
using ReadToken = std::uint64_t;

class ChannelObserver {
 public:
  virtual ~ChannelObserver() = default;
  // A segment's header has arrived. Fill `target` with header.length bytes of memory that stays
  // valid until on_segment_end or redirect(token); leave it empty to have the payload thrown away
  // (no further call then).
  virtual void on_segment(PeerId from, const SegmentHeader&, ReadToken, MutablePieces& target) = 0;
  // The payload is complete (and its checksum right), or not: the connection died in the middle of
  // it, or it came by reference (lending.hpp) and the sender has forgotten it meanwhile, or it
  // could not be read and comes again.
  virtual void on_segment_end(PeerId from, const SegmentHeader&, ReadToken, bool complete) = 0;
  virtual void on_message(PeerId from, ByteView body) = 0;
  virtual void on_room(PeerId to) = 0;  // has_room() is true again
  // One has died; `open` are left, 0: the channel is down. Not called for adopt(), whose caller
  // knows.
  virtual void on_connections(PeerId peer, std::size_t open) = 0;
};

class Channel {
 public:
  virtual ~Channel() = default;

  // A control message; copied, kept until it is acknowledged, sent ahead of segments. A peer that
  // leaves too many bytes of them unread (see stream_channel.cpp) is given up: its connections
  // break and no new one is adopted.
  virtual void send_message(ByteView body) = 0;

  // Reads `pieces` until the segment is acknowledged or forget() names its operation. Callers hold
  // back while !has_room(), so that the order of what leaves next is decided late.
  virtual void send_segment(const SegmentHeader&, const Pieces& pieces) = 0;
  virtual bool has_room() const = 0;

  // From here on no byte of the operation's memory is read: unsent segments are dropped, one that
  // is half on the wire is finished from a copy.
  virtual void forget(OpId) = 0;

  // From here on the payload that is being read under this token goes nowhere. No further call for
  // it. It is taken as received: if it is needed after all, somebody has to ask for it. Not from
  // inside on_segment, which may leave `target` empty.
  virtual void redirect(ReadToken) = 0;

  // From inside on_segment: there is no place for this segment at present. `target` is not used,
  // and the connection breaks, so that the segment counts as lost and comes again.
  virtual void refuse(ReadToken) = 0;

  // Adds an open connection whose handshake is done. Its unread bytes come along.
  virtual void adopt(std::unique_ptr<Connection>) = 0;
  virtual std::size_t connections() const = 0;
  virtual bool same_host() const = 0;  // of all its connections, and it has some

  virtual void flush() = 0;  // writes what can be written; hosts call it once after a batch of work
  virtual void tick(Time now) = 0;
  virtual std::optional<Time> next_deadline() const = 0;

  virtual std::uint64_t bytes_sent() const = 0;  // on the wire, headers included
  virtual std::uint64_t bytes_received() const = 0;
  // What its present connections have shown of the way to the peer, all together; nothing if they
  // don't know.
  virtual std::optional<WayMeasurement> measurement() const = 0;

  virtual void close(
      Status reason) = 0;  // all connections at once; no further callback; idempotent
};

struct ChannelOptions {
  PeerId peer;
  std::uint32_t segment_bytes = 256 * 1024;  // a hint for queue limits
  bool checksum_everywhere = false;          // default: only on connections between hosts
};

std::unique_ptr<Channel> make_stream_channel(const ChannelOptions&, ChannelObserver*);

}  // namespace pyccl::transport
