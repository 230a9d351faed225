// One framed connection: whole messages and segments over a byte stream. Used as it is for control
// links and handshakes, and several together as a Channel.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "transport/network.hpp"

namespace pyccl::transport {

class Connection;

// A piece of a transfer of an operation. (sender, op, part, step) names the transfer, `offset` the
// place in it.
struct SegmentHeader {
  OpId op;
  std::uint16_t part = 0;  // an operation over several data types has one part for each
  std::uint16_t step = 0;  // of the sender's plan
  bool empty =
      false;  // covers `length` bytes of the transfer but contributes nothing: no payload follows
  std::uint64_t offset = 0;  // bytes from the begin of the transfer
  std::uint32_t length = 0;  // bytes
};

inline constexpr std::uint32_t segment_bytes_max = 1 << 20;
inline constexpr std::size_t pieces_max = 16;  // of one segment in memory

// A segment's memory in up to pieces_max runs of bytes.
template <class View>
class PieceList {
 public:
  void push(View piece) {
    PYCCL_ASSERT(count_ < pieces_max);
    if (!piece.empty()) pieces_[count_++] = piece;
  }
  std::span<const View> view() const { return {pieces_.data(), count_}; }
  bool empty() const { return count_ == 0; }

 private:
  std::array<View, pieces_max> pieces_{};
  std::size_t count_ = 0;
};
using Pieces = PieceList<ByteView>;
using MutablePieces = PieceList<MutableByteView>;

// A control link's side: the host of a Connection that belongs to no channel.
class ConnectionObserver {
 public:
  virtual ~ConnectionObserver() = default;
  virtual void on_open(Connection&) = 0;                    // dialled connections only
  virtual void on_message(Connection&, ByteView body) = 0;  // body is valid during the call
  // Once, and the last call: refused, reset, closed by the other side, or it broke the framing
  // (Code::protocol_violation). The observer may destroy the connection here.
  virtual void on_closed(Connection&, Status) = 0;
};

class Connection {
 public:
  static std::unique_ptr<Connection> dial(Network&, const std::string& address,
                                          ConnectionObserver*);
  // Until its first message has come, the caller is a stranger, who gets no more memory than that
  // message may need.
  static std::unique_ptr<Connection> accepted(std::unique_ptr<Stream>, ConnectionObserver*,
                                              std::size_t first_message_bytes = message_bytes_max);
  virtual ~Connection() = default;  // closes

  // Queued and written as the stream takes it. The queue is bounded: a peer that does not read its
  // control link is cut off (on_closed with Code::limit_exceeded).
  virtual void send_message(ByteView body) = 0;
  virtual void flush() = 0;
  // Writes what is queued and then the end, and is closed() when the other side has ended, too: to
  // close before would reset the stream and could take the last words along. No callback follows.
  // How long to wait for the other side is the host's decision: it destroys this when it has
  // enough.
  virtual void finish() = 0;
  virtual void close() = 0;  // at once; no callback follows
  virtual bool closed() const = 0;
  virtual std::string remote_address() const = 0;
  virtual bool same_host() const = 0;
};

}  // namespace pyccl::transport
