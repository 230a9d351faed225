// Each kind of fault strikes at random times around its mean, at random victims.
#include "sim/byte/faults.hpp"

#include <vector>

#include "sim/byte/user.hpp"

namespace pyccl::sim {

namespace {

// After a silence that heartbeats and handshakes have to notice.
constexpr Duration silence_noticed = 5s;

}  // namespace

Duration ByteFaults::some(std::uint64_t low_ms, std::uint64_t high_ms) {
  return std::chrono::milliseconds(
      static_cast<std::int64_t>(world_.faults.between(low_ms, high_ms)));
}

void ByteFaults::every(Duration mean, std::function<void()> fault) {
  if (mean.count() == 0) return;
  const Duration wait(
      static_cast<std::int64_t>(world_.faults.below(2 * static_cast<std::uint64_t>(mean.count()))));
  world_.clock.after(wait, [this, mean, fault = std::move(fault)] {
    if (!world_.faults_on) return;
    fault();
    every(mean, fault);
  });
}

std::shared_ptr<BytePeer> ByteFaults::any_peer() {
  const auto living = world_.living();
  return living.empty() ? nullptr : living[world_.faults.below(living.size())];
}

std::string ByteFaults::any_host() {
  const auto machines = static_cast<std::uint64_t>(world_.swarm.machines);
  const std::uint64_t machine = world_.faults.below(machines + 1);
  return machine == 0 ? world_.coordinator.host_name() : world_.host_of(static_cast<int>(machine));
}

std::pair<std::string, std::string> ByteFaults::any_path() {
  std::string from = any_host();
  std::string to = any_host();
  while (to == from) to = any_host();
  return {std::move(from), std::move(to)};
}

bool ByteFaults::arrive() {
  std::vector<int> free;
  for (int machine = 1; machine <= world_.swarm.machines; ++machine) {
    if (!world_.peer_at(machine)) free.push_back(machine);
  }
  if (free.empty()) return false;
  world_.spawn(free[world_.faults.below(free.size())]);
  return true;
}

void ByteFaults::start() {
  world_.faults_on = true;
  const ByteFaultRates& rates = world_.swarm.rates;
  every(rates.peer_crash, [this] { crash_peer(); });
  every(rates.power_loss, [this] {
    if (const auto peer = any_peer()) peer->crash(true);
  });
  every(rates.peer_pause, [this] { pause_peer(); });
  every(rates.coordinator_crash, [this] {
    if (!world_.coordinator.up()) return;
    world_.coordinator.crash(world_.faults.chance(1, 4));
    world_.restart_coordinator_later();
  });
  every(rates.coordinator_pause, [this] { pause_coordinator(); });
  every(rates.stream_reset, [this] {
    const auto [from, to] = any_path();
    const auto how = static_cast<Break>(world_.faults.chance(2, 3) ? 0 : world_.faults.below(3));
    // Who does not know it is not helped before it has something to say.
    const Duration noticed = how == Break::both ? Duration(0) : silence_noticed;
    world_.trouble_until(world_.clock.now() + noticed);
    world_.network.break_stream(from, to, world_.faults.next(), how);
  });
  every(rates.pair_reset, [this] {
    const auto [from, to] = any_path();
    world_.say("all streams between " + from + " and " + to + " break");
    world_.trouble_until(world_.clock.now());
    while (world_.network.break_stream(from, to, 0, Break::both)) {
    }
  });
  every(rates.stream_clog, [this] {
    const auto [from, to] = any_path();
    const Time end = world_.clock.now() + some(1, 3000);
    world_.trouble_until(end);
    world_.network.clog_stream(from, to, world_.faults.next(), end);
  });
  every(rates.path_clog, [this] {
    const auto [from, to] = any_path();
    const Time end = world_.clock.now() + some(1, 1000);
    world_.trouble_until(end);
    world_.network.clog(from, to, end);
  });
  every(rates.partition, [this] { part(); });
  every(rates.bit_flip, [this] {
    const auto [from, to] = any_path();
    world_.trouble_until(world_.clock.now());
    world_.network.flip_bit(from, to, world_.faults.next());
  });
  every(rates.stranger, [this] { send_stranger(); });
  every(rates.arrival, [this] { arrive(); });
}

void ByteFaults::crash_peer() {
  const auto peer = any_peer();
  if (!peer) return;
  if (world_.faults.chance(1, 2)) {
    peer->crash(false);
  } else {
    peer->crash_in_turn();
  }
}

void ByteFaults::pause_peer() {
  const auto peer = any_peer();
  if (!peer || peer->paused()) return;
  peer->pause(false);
  const Duration time = some(10, world_.faults.chance(1, 3) ? 9000 : 1500);
  world_.trouble_until(world_.clock.now() + time);
  world_.clock.after(time, [peer] { peer->resume(); });
}

void ByteFaults::pause_coordinator() {
  if (!world_.coordinator.up() || world_.coordinator.paused()) return;
  world_.coordinator.pause();
  world_.clock.after(some(10, world_.faults.chance(1, 3) ? 12000 : 1500), [this] {
    if (world_.coordinator.paused()) world_.coordinator.resume();
  });
}

// Of a pair of hosts, in one direction or both.
void ByteFaults::part() {
  const auto [from, to] = any_path();
  const Duration time = some(200, world_.faults.chance(1, 3) ? 20'000 : 4000);
  world_.trouble_until(world_.clock.now() + time + silence_noticed);
  world_.say(from + " and " + to + " are parted");
  world_.network.block(from, to);
  if (world_.faults.chance(2, 3)) world_.network.block(to, from);
  world_.clock.after(time, [this, from = from, to = to] {
    if (!world_.faults_on) return;
    world_.network.unblock(from, to);
    world_.network.unblock(to, from);
  });
}

void ByteFaults::send_stranger() {
  const std::string host = any_host();
  const bool coordinator = host == world_.coordinator.host_name();
  const std::string address = coordinator ? world_.coordinator.address() : host + ":5000";
  strangers_.push_back(std::make_unique<Stranger>(world_.network, address, world_.faults.fork()));
}

void ByteFaults::heal() {
  world_.say("everything heals");
  world_.faults_on = false;
  world_.trouble = world_.clock.now() + silence_noticed;
  world_.network.unblock_all();
  strangers_.clear();
  std::size_t well = 0;
  for (const auto& peer : world_.living()) {
    const bool lost = well > 0 && world_.faults.chance(1, 8);
    well += lost ? 0 : 1;
    const std::uint64_t how = world_.faults.below(3);
    if (!lost) {
      peer->resume();
    } else if (how == 2) {
      peer->pause(true);
    } else {
      peer->crash(how == 0);
    }
  }
  if (world_.coordinator.paused()) world_.coordinator.resume();
  if (!world_.coordinator.up()) world_.coordinator.start();
  const auto living = world_.living();
  // Two that can't reach each other for good: one of them has to go.
  if (living.size() >= 3 && world_.faults.chance(1, 6)) {
    const std::string left = living[0]->host().name();
    const std::string right = living[world_.faults.between(1, living.size() - 1)]->host().name();
    // It takes its time until that is certain.
    world_.doubt_for(world_.swarm.network.silence_limit + world_.timing.cut_off_limit());
    world_.say(left + " and " + right + " are parted for good");
    world_.network.block(left, right);
    world_.network.block(right, left);
  }
  while (well < 2 && arrive()) ++well;
}

}  // namespace pyccl::sim
