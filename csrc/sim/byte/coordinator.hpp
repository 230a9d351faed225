// The coordinator's process in the byte world: hosts an engine::CoordinatorHost; what it has
// written outlives it. It may die while it writes, before the new state is durable or behind that.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "engine/coordinator_host.hpp"
#include "sim/byte/alarm.hpp"
#include "sim/network.hpp"

namespace pyccl::sim {

class ByteWorld;

class ByteCoordinator final : private engine::StateStore {
 public:
  explicit ByteCoordinator(ByteWorld& world);
  ~ByteCoordinator() override;

  void start();
  void crash(bool power);
  void pause();
  void resume();
  bool up() const { return engine_ != nullptr; }
  bool paused() const { return host_.paused(); }
  const std::string& host_name() const { return host_.name(); }
  const std::string& address() const { return address_; }

  const protocol::Coordinator* machine() const { return engine_ ? engine_->machine() : nullptr; }
  std::size_t connection_count() const { return engine_->connection_count(); }
  std::size_t open_streams() const { return host_.open_streams(); }

 private:
  Status write(const protocol::CoordinatorState& state) override;
  void turn();

  ByteWorld& world_;
  SimulatedHost& host_;
  Alarm alarm_;
  std::string address_;
  RunId fresh_run_;
  std::optional<protocol::CoordinatorState> file_;
  std::unique_ptr<engine::CoordinatorHost> engine_;
  bool dying_ = false;  // killed inside its turn
};

}  // namespace pyccl::sim
