// Turns and deaths of the coordinator's process; see coordinator.hpp.
#include "sim/byte/coordinator.hpp"

#include <utility>

#include "base/assert.hpp"
#include "sim/byte/world.hpp"

namespace pyccl::sim {

ByteCoordinator::ByteCoordinator(ByteWorld& world)
    : world_(world), host_(world.network.host("10.0.1.1")), alarm_(world.clock, host_) {
  address_ = host_.name() + ":4000";
  fresh_run_ = RunId{world.identities.next() | 1};
}

ByteCoordinator::~ByteCoordinator() = default;

void ByteCoordinator::start() {
  if (!host_.up()) host_.power_on();
  if (host_.paused()) host_.resume();
  dying_ = false;
  engine::CoordinatorHostOptions options;
  options.listen = address_;
  options.machine.fresh_run = fresh_run_;
  options.machine.timing = world_.timing;
  options.recovered = file_;
  world_.say("the coordinator starts");
  world_.doubt_for(world_.timing.recovery_limit);
  auto opened = engine::CoordinatorHost::open(options, host_, world_.clock, *this);
  PYCCL_ASSERT(opened.ok());
  engine_ = opened.take();
  host_.set_turn([this] {
    if (engine_ != nullptr) turn();
  });
  host_.wake();
}

void ByteCoordinator::crash(bool power) {
  if (!up()) return;
  world_.say(power ? "the coordinator loses power" : "the coordinator is killed");
  if (power) {
    host_.power_off();
  } else {
    host_.kill();
  }
  engine_.reset();
}

void ByteCoordinator::pause() {
  world_.say("the coordinator is stopped");
  host_.pause();
}

void ByteCoordinator::resume() {
  world_.say("the coordinator goes on");
  host_.resume();
}

void ByteCoordinator::turn() {
  host_.poll();
  if (const auto due = engine_->next_deadline(); due && *due <= world_.clock.now()) {
    engine_->tick();
  }
  engine_->end_turn();
  for (const auto& line : std::exchange(engine_->log, {})) world_.say("coordinator: " + line.text);
  if (dying_) {
    engine_.reset();
    return world_.restart_coordinator_later();
  }
  alarm_.set(engine_->next_deadline());
}

Status ByteCoordinator::write(const protocol::CoordinatorState& state) {
  const bool wild = world_.faults_on && engine_ != nullptr && !dying_;
  if (dying_) return {Code::io, "no longer there"};
  if (wild && world_.crash_points.chance(world_.swarm.write_failure_percent, 100)) {
    world_.say("the coordinator can't write its state");
    world_.doubt_for(1s + world_.timing.recovery_limit);  // it begins again soon, as if restarted
    return {Code::io, "the disk is full"};
  }
  const bool dies = wild && world_.crash_points.chance(world_.swarm.crash_point_percent, 100);
  const bool before = dies && world_.crash_points.chance(1, 2);
  if (!before) {
    if (!file_ || file_->view.epoch != state.view.epoch) ++world_.views;
    file_ = state;
    world_.history.persisted(state.view);
    world_.checks.tell(&ByteCheck::persisted, state);
  }
  if (dies) {
    world_.say(before ? "the coordinator is killed before its state is written"
                      : "the coordinator is killed when its state has been written");
    dying_ = true;
    host_.kill();
  }
  return {};
}

}  // namespace pyccl::sim
