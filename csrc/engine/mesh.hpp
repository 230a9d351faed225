// The channels to the other members: opened when a view is prepared, kept while the view lasts,
// dialled again when a connection breaks, closed when a peer is out.
//
// Of each pair the peer with the higher PeerId dials at once. The other one dials only if nothing
// has come after a moment, so a pair connects when either side can reach the other.
//
// How many connections a pair has, the first dialler says, but the other side takes no more than
// twice its own number. A dialler that has met this limit is content with what it has.
//
// A pair that shares memory talks through it: one connection, since more would gain nothing. The
// first dial offers that, and only when it has turned out that memory is not shared, others follow.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "base/time.hpp"
#include "engine/handshake.hpp"
#include "engine/link_meter.hpp"
#include "protocol/limits.hpp"
#include "protocol/view.hpp"
#include "transport/channel.hpp"
#include "transport/network.hpp"
#include "transport/shared_memory.hpp"

namespace pyccl::engine {

struct MeshOptions {
  PeerId self;
  std::string listen;
  std::uint32_t connections = 4;
  std::uint32_t segment_bytes = 0;
  protocol::Timing timing;
  std::uint64_t seed = 0;
  transport::Choice transport = transport::Choice::automatic;
};

class MeshHost : public transport::ChannelObserver {
 public:
  // All asked for by connect() are linked, or the time is over and these are not.
  virtual void mesh_prepared(Epoch, std::vector<PeerId> unreachable) = 0;
  virtual void mesh_broken(PeerId) = 0;    // no connection is left
  virtual void mesh_restored(PeerId) = 0;  // the first one is there again
  virtual void mesh_note(std::string) {}   // for the log
};

class Mesh final : private HandshakeHost,
                   private transport::AcceptObserver,
                   private transport::ChannelObserver {
 public:
  Mesh(const MeshOptions&, transport::Network&, const Clock&, MeshHost&);
  ~Mesh() override;

  Status listen();
  std::string address() const { return listener_ ? listener_->address() : std::string(); }

  // Opens channels to the members of a view that is being prepared.
  void connect(Epoch, RunId, const std::vector<protocol::MemberInfo>&);
  // Keeps the channels of this view and closes all others.
  void install(const protocol::View&);
  transport::Channel* channel(PeerId);
  bool open(PeerId) const;
  std::vector<LinkMeter::Reading> readings() const;

  void flush();
  void tick();
  std::optional<Time> next_deadline() const;
  void close(const Status& reason);

 private:
  // Whether memory is shared with a peer; unknown until it has been offered, and again when the
  // connection through it has broken.
  enum class Memory { unknown, shared, separate };
  struct Remote {
    protocol::MemberInfo info;
    std::unique_ptr<transport::Channel> channel;
    std::size_t connections = 0;
    std::size_t dialling = 0;
    std::size_t next_address = 0;
    Time next_dial;
    Duration backoff{};
    bool limited = false;  // it has refused a link as one too many
    Memory memory = Memory::unknown;
  };
  struct Preparing {
    Epoch epoch;
    std::vector<PeerId> peers;
    Time deadline;
  };

  void add(const protocol::MemberInfo&);
  void dial(Remote&);
  bool wants_dial(const Remote&) const;
  void dial_later(Remote&, Code why);
  void check_prepared(bool give_up);
  void accept(Handshake&);
  void adopt(PeerId, std::unique_ptr<transport::Connection>, Memory);
  void note(PeerId, const std::string& what);
  void settle_offers();
  void sweep();
  HandshakeHost& handshake_host() { return *this; }

  void link_offered(Handshake&, const protocol::Link&) override;
  void link_ended(Handshake&, Status) override;
  void on_accepted(std::unique_ptr<transport::Stream>) override;
  void on_segment(PeerId, const transport::SegmentHeader&, transport::ReadToken,
                  transport::MutablePieces&) override;
  void on_segment_end(PeerId, const transport::SegmentHeader&, transport::ReadToken, bool) override;
  void on_message(PeerId, ByteView) override;
  void on_room(PeerId) override;
  void on_connections(PeerId, std::size_t open) override;

  MeshOptions options_;
  transport::Network& network_;
  transport::SharedMemory* memory_;  // nullptr: not to be used
  const Clock& clock_;
  MeshHost& host_;
  Prng prng_;
  RunId run_;
  std::unique_ptr<transport::Listener> listener_;
  std::map<PeerId, Remote> remotes_;
  std::vector<std::unique_ptr<Handshake>> handshakes_;
  std::vector<std::unique_ptr<transport::Channel>> closing_;  // freed outside their callbacks
  std::optional<Preparing> preparing_;
  bool closed_ = false;
};

}  // namespace pyccl::engine
