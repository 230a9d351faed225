// Two peers with a channel between them, for the suites: connections are made by a handshake of two
// messages, as the engine does it; streams can be broken from outside; everything that arrives is
// checked against what was sent.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "transport/channel.hpp"
#include "transport/conformance.hpp"
#include "transport/connection.hpp"

namespace pyccl::transport::test {

// Passes streams through and remembers them, so that a test can break one.
class BreakableNetwork final : public Network, private AcceptObserver {
 public:
  explicit BreakableNetwork(Network& inner) : inner_(inner) {}
  std::unique_ptr<Stream> dial(const std::string& address, StreamObserver* observer) override;
  Result<std::unique_ptr<Listener>> listen(const std::string& address,
                                           AcceptObserver* observer) override;

  std::size_t open() const { return streams_.size(); }
  void break_one(std::size_t index);
  // Flips a bit of the byte that is `bytes` further on in what is written from here on.
  void flip_next(std::size_t bytes) { flip_in_ = bytes; }
  // Who is to read by reference finds nothing there.
  void spoil_references(bool on) { spoils_ = on; }

 private:
  class Wrapped;
  void on_accepted(std::unique_ptr<Stream> stream) override;

  Network& inner_;
  AcceptObserver* observer_ = nullptr;
  std::vector<Wrapped*> streams_;
  std::optional<std::size_t> flip_in_;
  bool spoils_ = false;
};

// A segment is known by its op's seq; its bytes are pattern(length, seq).
SegmentHeader segment_header(std::uint32_t seq, std::uint32_t length);

class LanePeer final : public ChannelObserver, public ConnectionObserver, public AcceptObserver {
 public:
  LanePeer(Harness& harness, Network& network, PeerId other, const ChannelOptions& options);

  void listen();
  void dial(const std::string& address);
  std::string address() const { return listener_->address(); }

  // Keeps the bytes until the peer is destroyed or drop() is called.
  void send_segment(std::uint32_t seq, std::uint32_t length, std::size_t pieces = 1);
  // The channel forgets it, and its bytes turn into poison.
  void drop(std::uint32_t seq);
  void send_text(const std::string& text);
  std::size_t sent() const { return outgoing_.size(); }
  bool dialling() const { return !handshakes_.empty(); }
  // Frees the memory of a read; it must have been redirected.
  void free_memory(ReadToken token) { reading_.erase(token); }

  void on_segment(PeerId from, const SegmentHeader& header, ReadToken token,
                  MutablePieces& target) override;
  void on_segment_end(PeerId from, const SegmentHeader& header, ReadToken token,
                      bool complete) override;
  void on_message(PeerId from, ByteView body) override;
  void on_room(PeerId to) override;
  void on_connections(PeerId peer, std::size_t open) override;

  void on_open(Connection& connection) override;
  void on_message(Connection& connection, ByteView body) override;
  void on_closed(Connection& connection, Status status) override;
  void on_accepted(std::unique_ptr<Stream> stream) override;

  std::unique_ptr<Channel> channel;
  std::map<std::uint32_t, int> segments;  // complete ones, by seq
  std::map<std::string, int> texts;
  std::size_t incomplete = 0;
  std::size_t rooms = 0;
  std::vector<std::size_t> connection_counts;
  std::vector<Status> closed;  // connections that ended before they were adopted
  std::function<void()> when_room;
  std::function<void(const SegmentHeader&, ReadToken)> when_segment;
  std::function<void()> when_segment_end;
  std::function<void()> when_message;
  std::function<void()> when_connections;

 private:
  struct Reading {
    Bytes memory;
    std::uint32_t seq = 0;
  };
  void adopt(Connection& connection);

  Harness& harness_;
  Network& network_;
  PeerId other_;
  std::unique_ptr<Listener> listener_;
  std::vector<std::unique_ptr<Connection>> handshakes_;
  std::map<std::uint32_t, std::vector<Bytes>> outgoing_;
  std::map<ReadToken, Reading> reading_;
};

class Lane {
 public:
  Lane(Harness& harness, std::size_t connections, const ChannelOptions& options = {});
  void connect(std::size_t connections);
  // One turn of the loop and of the channels.
  bool until(const std::function<bool()>& done);
  void turn();

  Harness& harness;
  BreakableNetwork network;
  LanePeer left;
  LanePeer right;
};

}  // namespace pyccl::transport::test
