// Each kind of fault strikes at random times around its mean, at random victims.
#include "sim/protocol/faults.hpp"

#include <utility>

#include "sim/protocol/user.hpp"

namespace pyccl::sim {

Duration Faults::some(std::uint64_t low_ms, std::uint64_t high_ms) {
  return std::chrono::milliseconds(world_.faults.between(low_ms, high_ms));
}

void Faults::every(Duration mean, std::function<void()> fault) {
  if (mean.count() == 0) return;
  const Duration wait(
      static_cast<std::int64_t>(world_.faults.below(2 * static_cast<std::uint64_t>(mean.count()))));
  world_.clock.after(wait, [this, mean, fault = std::move(fault)] {
    if (!world_.faults_on) return;
    fault();
    every(mean, fault);
  });
}

std::shared_ptr<PeerNode> Faults::any_peer() {
  const auto living = world_.living();
  return living.empty() ? nullptr : living[world_.faults.below(living.size())];
}

MachineId Faults::any_machine() {
  return static_cast<MachineId>(
      world_.faults.below(static_cast<std::uint64_t>(world_.swarm.machines) + 1));
}

bool Faults::arrive() {
  std::vector<MachineId> free;
  for (MachineId machine = 1; machine <= world_.swarm.machines; ++machine) {
    if (!world_.peer_at(machine)) free.push_back(machine);
  }
  if (free.empty()) return false;
  const MachineId machine = free[world_.faults.below(free.size())];
  const auto peer = world_.spawn(machine, world_.group_of(machine));
  peer->caller = std::make_unique<User>(world_, *peer);
  return true;
}

void Faults::start() {
  world_.faults_on = true;
  const FaultRates& rates = world_.swarm.rates;
  every(rates.peer_crash, [this] {
    if (const auto peer = any_peer()) peer->crash(false);
  });
  every(rates.machine_loss, [this] {
    if (const auto peer = any_peer()) peer->crash(true);
  });
  every(rates.peer_pause, [this] { pause_peer(); });
  every(rates.coordinator_crash, [this] {
    if (world_.coordinator.up()) world_.crash_coordinator_for_a_while();
  });
  every(rates.coordinator_pause, [this] { pause_coordinator(); });
  every(rates.control_reset, [this] { reset_control(); });
  every(rates.control_partition, [this] { part_from_coordinator(); });
  every(rates.lane_reset, [this] { reset_lanes(false); });
  every(rates.channel_reset, [this] { reset_lanes(true); });
  every(rates.clog, [this] { clog(); });
  every(rates.pair_partition, [this] { part_pair(); });
  every(rates.arrival, [this] { arrive(); });
}

void Faults::pause_peer() {
  const auto peer = any_peer();
  if (!peer || peer->paused()) return;
  peer->pause();
  world_.clock.after(some(10, world_.faults.chance(1, 3) ? 9000 : 1500),
                     [peer] { peer->resume(); });
}

void Faults::pause_coordinator() {
  world_.coordinator.pause();
  world_.clock.after(some(10, world_.faults.chance(1, 3) ? 12000 : 1500),
                     [this] { world_.coordinator.resume(); });
}

void Faults::reset_control() {
  const auto peer = any_peer();
  if (!peer || !peer->coordinator_line()) return;
  const bool half_open = world_.faults.chance(1, 4);
  world_.say("connection of ", peer->name(), " to the coordinator breaks");
  ++world_.routes[peer->machine()];
  peer->coordinator_line()->reset(half_open ? some(0, 5000) : some(0, 30),
                                  half_open ? some(0, 5000) : some(0, 30));
}

void Faults::reset_lanes(bool all) {
  const auto peer = any_peer();
  if (!peer || peer->channels().empty()) return;
  auto channel = peer->channels().begin();
  std::advance(channel, static_cast<std::ptrdiff_t>(world_.faults.below(peer->channels().size())));
  world_.say("connections of ", peer->name(), " to ", to_string(channel->first), " break");
  const bool half_open = world_.faults.chance(1, 4);
  for (const auto& lane : channel->second.lanes) {
    lane.connection->reset(half_open ? some(0, 4000) : some(0, 30), some(0, 30));
    if (!all) break;
  }
}

void Faults::clog() {
  const MachineId from = any_machine();
  const MachineId to = any_machine();
  if (from != to) world_.network.block_for(from, to, some(1, 1000));
}

void Faults::part_from_coordinator() {
  const MachineId machine = any_machine();
  if (machine == 0) return;
  const Duration time = some(200, 8000);
  const std::uint64_t way = world_.faults.below(3);
  world_.say("p", static_cast<std::uint64_t>(machine), " is parted from the coordinator");
  if (way != 0) world_.network.block_for(machine, 0, time);
  if (way != 1) world_.network.block_for(0, machine, time);
}

void Faults::part_pair() {
  const MachineId left = any_machine();
  const MachineId right = any_machine();
  if (left == right || left == 0 || right == 0) return;
  world_.say("p", static_cast<std::uint64_t>(left), " and p", static_cast<std::uint64_t>(right),
             " are parted");
  const Duration time = some(200, world_.faults.chance(1, 3) ? 20'000 : 3000);
  world_.network.block_for(left, right, time);
  if (world_.faults.chance(2, 3)) world_.network.block_for(right, left, time);
}

void Faults::heal() {
  world_.say("everything heals");
  world_.faults_on = false;
  world_.healed = world_.clock.now();
  world_.network.heal();
  auto living = world_.living();
  std::size_t well = 0;
  for (const auto& peer : living) {
    const bool lost = well > 0 && world_.faults.chance(1, 8);
    well += lost ? 0 : 1;
    const std::uint64_t how = world_.faults.below(3);
    if (!lost) {
      peer->resume();
    } else if (how == 0) {
      peer->crash(true);
    } else if (how == 1) {
      peer->crash(false);
    } else {
      peer->pause(true);
    }
  }
  if (world_.coordinator.paused()) world_.coordinator.resume();
  if (!world_.coordinator.up()) world_.coordinator.start();
  living = world_.living();
  // Two that can't reach each other for good: one of them has to go.
  if (living.size() >= 3 && world_.faults.chance(1, 6)) {
    const MachineId left = living[0]->machine();
    const MachineId right = living[world_.faults.between(1, living.size() - 1)]->machine();
    world_.say("p", static_cast<std::uint64_t>(left), " and p", static_cast<std::uint64_t>(right),
               " are parted for good");
    world_.network.block(left, right);
    world_.network.block(right, left);
  }
  while (well < 2 && arrive()) ++well;
}

}  // namespace pyccl::sim
