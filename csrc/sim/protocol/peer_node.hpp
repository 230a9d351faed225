// One life of a peer's process: hosts a Member, keeps channels to the other members, moves the
// modelled data of operations.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "protocol/member.hpp"
#include "sim/protocol/network.hpp"
#include "sim/protocol/process.hpp"

namespace pyccl::sim {

class World;
class PeerNode;

// Who calls the API of a peer: a program (user.hpp) or a script.
class Caller {
 public:
  virtual ~Caller() = default;
  virtual void installed(const protocol::View&) = 0;
  virtual void committed(OpKey op, bool hint) = 0;
  virtual void failed(OpKey op, const Status& status) = 0;
  virtual void withdrawn(OpKey op) = 0;
  virtual void update_finished(const Status& status) = 0;
  virtual void gone() = 0;  // left or ended
};

// All connections to one other peer. Pieces take any of them, so there is no order between pieces;
// what a broken one may have lost goes out again on the others.
class PeerChannel {
 public:
  struct Sent {
    PayloadPointer payload;
    std::shared_ptr<bool> arrived;
  };
  struct Lane {
    std::shared_ptr<Connection> connection;
    int end = 0;
    std::deque<Sent> sent;
  };

  void send(Prng& prng, const PayloadPointer& payload);
  // True if this was the last one.
  bool lane_broken(Prng& prng, const Connection* connection);
  std::vector<Lane> lanes;
  bool dialling = false;
};

// An attempt at an operation: what has come from whom.
struct Exchange {
  OpId op;
  std::vector<PeerId> members;
  std::set<PeerId> posted;  // they take our pieces
  std::map<PeerId, std::map<std::uint32_t, std::uint64_t>> received;
  std::map<PeerId, std::set<std::uint32_t>> receipts;
  bool whole = false;
};

class PeerNode : public std::enable_shared_from_this<PeerNode> {
 public:
  PeerNode(World& world, MachineId machine, PeerId id, std::string group);

  void start();
  void crash(bool machine_too);
  void pause(bool for_good = false);
  void resume();
  bool alive() const { return process_.alive(); }
  bool paused() const { return process_.paused(); }
  Time paused_until = {};  // calls may last so much longer
  std::string departure;   // how it ended: "left", or the name of an error code

  // The API, as the caller sees it.
  Result<OpKey> post(protocol::Call call, Duration deadline);
  void cancel(OpKey op);
  bool update(Duration deadline);
  void cancel_update();
  void measured(std::vector<protocol::MeasuredLink> links);
  void leave(Duration deadline);
  void after(Duration delay, std::function<void()> action);

  protocol::Member& member() { return member_; }
  const protocol::Member& member() const { return member_; }
  MachineId machine() const { return machine_; }
  PeerId id() const { return id_; }
  const std::string& group() const { return group_; }
  const std::string& name() const { return name_; }
  bool has_channel(PeerId peer) const;
  const Exchange* exchange(OpKey op) const;
  const std::shared_ptr<Connection>& coordinator_line() const { return line_; }
  const std::map<PeerId, PeerChannel>& channels() const { return channels_; }

  std::unique_ptr<Caller> caller;

  bool accept_lane(const std::shared_ptr<Connection>& connection, PeerId dialler, PeerId wanted);

 private:
  // peer_node.cpp
  void drain();
  void perform(const protocol::MemberEffect& effect);
  void set_timer();
  void dial_coordinator(Duration delay);
  void coordinator_line_up(std::shared_ptr<Connection> line);
  void drop_coordinator_line();
  void receive_from_coordinator(std::uint64_t line, const PayloadPointer& payload);
  void finish(const std::string& why);
  std::function<void()> guarded(std::function<void(PeerNode&)> action);

  // peer_channels.cpp
  void connect_to(const protocol::ConnectTo& wanted);
  void answer_prepared(bool final);
  void adopt(const protocol::View& view);
  void dial_peer(PeerId peer, Duration delay);
  void lane_up(PeerId peer, std::shared_ptr<Connection> connection, int end);
  void lane_broken(PeerId peer, const Connection* connection);
  void receive_from_peer(PeerId from, const PayloadPointer& payload);
  void send_to_peer(PeerId to, const PayloadPointer& payload);

  // peer_exchange.cpp
  void begin(const protocol::StartOperation& start);
  void peer_posted(const protocol::PeerPosted& posted);
  void send_pieces(const Exchange& exchange, PeerId to);
  void receive_piece(PeerId from, const Contribution& piece);
  void receive_receipt(PeerId from, const Receipt& receipt);
  void look_if_whole(Exchange& exchange);

  World& world_;
  MachineId machine_;
  PeerId id_;
  std::string group_;
  std::string name_;
  Process process_;
  protocol::Member member_;
  Time timer_ = never;
  bool stays_paused_ = false;

  std::shared_ptr<Connection> line_;
  std::vector<std::shared_ptr<Connection>> former_lines_;  // never closed, by a planted bug
  std::uint64_t dial_ = 0;                                 // only the newest attempt counts

  std::map<PeerId, PeerChannel> channels_;
  std::map<PeerId, MachineId> wanted_;  // members of the view, and of the one being prepared
  std::optional<protocol::ConnectTo> preparing_;
  std::map<OpKey, Exchange> exchanges_;
};

}  // namespace pyccl::sim
