// One life of a peer's process in the byte world: hosts an engine::Peer, makes its user's calls and
// reports to the checks what comes of them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/peer.hpp"
#include "sim/byte/alarm.hpp"
#include "sim/byte/call.hpp"
#include "sim/network.hpp"

namespace pyccl::sim {

class ByteWorld;
class ByteUser;

// An open operation.
struct Posting {
  engine::Ticket ticket = 0;
  std::uint32_t tag = 0;
  std::optional<OpKey> key;  // none: it has no number yet
  Time deadline;
  bool cancelled = false;
  std::shared_ptr<ByteCall> call;
};

class BytePeer : public std::enable_shared_from_this<BytePeer> {
 public:
  BytePeer(ByteWorld& world, int machine, PeerId id, std::string group);
  ~BytePeer();

  void start();
  // Whatever it does just now, the process is gone; `power`: and nobody is told.
  void crash(bool power);
  // As crash(), but between what the next turn hears and what it would have said.
  void crash_in_turn() {
    crashes_in_turn_ = true;
    host_.wake();
  }
  void pause(bool for_good);
  void resume();
  void abandon() { engine_.reset(); }  // the world ends
  bool alive() const { return engine_ != nullptr; }
  bool ended() const { return ended_; }
  bool paused() const { return host_.paused(); }
  Time paused_until = {};  // calls may last so much longer

  // The user's calls; from inside a turn.
  Posting post(std::uint32_t tag, const CallShape& shape, Duration limit);
  void cancel(engine::Ticket ticket);
  engine::Ticket update(Duration limit);
  void leave(Duration limit);
  // In a turn of this process, if it lives then.
  void after(Duration delay, std::function<void()> action);

  engine::Peer& engine() { return *engine_; }
  const engine::Peer& engine() const { return *engine_; }
  const SimulatedHost& host() const { return host_; }
  int machine() const { return machine_; }
  PeerId id() const { return id_; }
  const std::string& group() const { return group_; }
  const std::string& name() const { return name_; }
  bool admitted() const { return admitted_; }
  const std::map<engine::Ticket, Posting>& open() const { return open_; }
  std::optional<Time> update_deadline() const { return update_deadline_; }
  std::optional<Time> leave_deadline() const { return leave_deadline_; }
  std::optional<Time> connect_deadline() const { return connect_deadline_; }
  ByteUser& user() { return *user_; }

 private:
  void turn();
  void number_calls();
  void numbered(Posting& posting, OpKey key);
  void drain();
  void on(const engine::ViewChanged& event);
  void on(const engine::Finished& event);
  void on(const engine::Ended& event);
  void on(const engine::LinksMeasured&) {}
  void on(const engine::Log& event);
  void gone();

  ByteWorld& world_;
  int machine_;
  PeerId id_;
  std::string group_;
  std::string name_;
  bool mirror_;
  SimulatedHost& host_;
  Alarm alarm_;
  std::unique_ptr<engine::Peer> engine_;
  std::unique_ptr<ByteUser> user_;
  std::vector<std::function<void()>> inbox_;
  bool admitted_ = false;
  bool ended_ = false;
  bool stays_paused_ = false;
  bool crashes_in_turn_ = false;
  std::uint64_t turns_ = 0;  // in this virtual second
  Time second_;
  bool view_changed_ = false;  // by an event of this turn
  engine::Ticket last_ticket_ = 0;
  std::map<engine::Ticket, Posting> open_;
  engine::Ticket update_ = 0;
  engine::Ticket leave_ = 0;
  std::optional<Time> update_deadline_;
  std::optional<Time> leave_deadline_;
  std::optional<Time> connect_deadline_;
};

}  // namespace pyccl::sim
