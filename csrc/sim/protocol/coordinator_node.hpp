// The coordinator's process: its connections, its timer, and a state file that survives it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>

#include "protocol/coordinator.hpp"
#include "sim/protocol/network.hpp"
#include "sim/protocol/process.hpp"

namespace pyccl::sim {

class World;

class CoordinatorNode {
 public:
  explicit CoordinatorNode(World& world) : world_(world) {}

  void start();
  void crash(bool machine_too);
  void pause();
  void resume();
  bool up() const { return life_ != nullptr; }
  bool paused() const { return life_ && life_->process.paused(); }

  const std::optional<protocol::CoordinatorState>& file() const { return file_; }
  // Somebody meddles with it while no process runs.
  void replace_file(std::optional<protocol::CoordinatorState> file);
  bool file_replaced() const { return file_replaced_; }
  // What the present one knows; the file if none runs.
  const protocol::View& view() const;
  const protocol::Coordinator* machine() const { return life_ ? &*life_->machine : nullptr; }

 private:
  using Line = std::shared_ptr<Connection>;

  // One life of the process.
  struct Life {
    Process process;
    std::optional<protocol::Coordinator> machine;
    std::map<PeerId, Line> bound;
    std::set<Line> unbound;
    Time timer = never;
  };

  bool accept(const Line& line);
  void receive(const Line& line, const protocol::Message& message);
  protocol::Message completed(const Line& line, protocol::Message message) const;
  void line_broken(const Line& line);
  void drain();
  bool perform(const protocol::CoordinatorEffect& effect);
  void probe(const protocol::Probe& effect);
  void set_timer();

  World& world_;
  std::shared_ptr<Life> life_;
  std::optional<protocol::CoordinatorState> file_;
  bool file_replaced_ = false;
};

}  // namespace pyccl::sim
