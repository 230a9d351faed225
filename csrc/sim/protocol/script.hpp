// The state of a running scenario: a calm world, callers that only record, and what is held back.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {

using Words = std::vector<std::string>;

// A caller that does nothing by itself and remembers how its calls ended.
class ScriptCaller final : public Caller {
 public:
  ScriptCaller(const World& world, const PeerNode& peer) : world_(world), peer_(peer) {}

  void installed(const protocol::View&) override {}
  void committed(OpKey op, bool hint) override;
  void failed(OpKey op, const Status& status) override;
  void withdrawn(OpKey op) override;
  void update_finished(const Status& status) override;
  void gone() override {}

  struct End {
    std::string how;  // committed, withdrawn, or the name of an error code
    std::string reason;
    bool hint = false;
    Words contributors;
  };
  std::map<OpKey, End> ends;
  std::string update;  // "ok" or the name of an error code; empty: none has ended
  std::string update_reason;

 private:
  const World& world_;
  const PeerNode& peer_;
};

class Script {
 public:
  explicit Script(Trace::Text text);

  // One line of a script. Empty if it went well, else what did not.
  std::string perform(const Words& words);
  World& world() { return world_; }

 private:
  // script.cpp: commands
  std::string start(const Words& words);
  std::string stop(const Words& words);
  std::string network(const Words& words);
  std::string move(const Words& words);
  std::string call(const Words& words);
  std::string post(const Words& words);
  std::string hold(const Words& words);
  std::string time(const Words& words);
  std::string gather(int count);
  std::string file(const Words& words);
  std::string repeat(const Words& words);
  std::vector<PeerId> peers_named(const std::string& text) const;
  std::optional<OpKey> operation_named(const std::string& text, const PeerNode& peer) const;
  std::shared_ptr<PeerNode> spawn(MachineId machine, const std::string& group);
  bool held(MachineId from, MachineId to, const Payload& payload) const;

  // script_conditions.cpp: what can be waited for and expected
  bool holds(const Words& words);
  bool holds_at(const Words& condition, const std::string& name);
  bool operation_holds(const Words& condition, const ScriptCaller& caller, const PeerNode* peer);
  bool peer_holds(const Words& condition, const ScriptCaller& caller, const PeerNode* peer);
  Words members_seen_by(const PeerNode& peer) const;

  struct Hold {
    std::string kind;
    int from = -1;  // any
    int to = -1;
  };

  World world_;
  std::optional<protocol::CoordinatorState> saved_;
  std::vector<Hold> holds_;
  std::map<std::string, std::shared_ptr<PeerNode>> named_;  // the newest life on each machine
  std::string problem_;                                     // of the line that is performed
};

// The numbers of "p3" (3) and "coordinator" (0); -1 for anything else.
MachineId machine_named(const std::string& name);
Duration seconds_named(const std::string& text);

}  // namespace pyccl::sim
