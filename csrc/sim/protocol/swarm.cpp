// Draws of the swarm. The ranges are wide on purpose: near zero and near too much both find things.
#include "sim/protocol/swarm.hpp"

namespace pyccl::sim {
namespace {

Duration milliseconds(std::uint64_t count) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(count));
}

// Off in half of the seeds, else between the bounds.
Duration rate(Prng& prng, std::uint64_t low_ms, std::uint64_t high_ms) {
  const std::uint64_t drawn = prng.between(low_ms, high_ms);
  return milliseconds(prng.chance(1, 2) ? drawn : 0);
}

std::uint64_t share(Prng& prng, std::uint64_t most) {
  const std::uint64_t drawn = prng.between(1, most);
  return prng.chance(1, 2) ? drawn : 0;
}

}  // namespace

Swarm draw_swarm(Prng& prng) {
  Swarm swarm;
  swarm.machines = static_cast<int>(prng.between(2, 8));
  swarm.first_peers = static_cast<int>(prng.between(1, static_cast<std::uint64_t>(swarm.machines)));
  swarm.groups = prng.chance(1, 5) ? 2 : 1;
  swarm.tags = static_cast<int>(prng.between(1, 3));
  swarm.depth = static_cast<int>(prng.between(1, 3));
  swarm.lanes = static_cast<int>(prng.between(1, 3));
  swarm.pieces = static_cast<int>(prng.between(1, 2));
  swarm.side_thread = prng.chance(1, 6);
  swarm.check_codec = prng.chance(1, 8);
  swarm.update_every = prng.chance(1, 4) ? prng.between(2, 6) : 0;
  swarm.raise_percent = share(prng, 60);
  swarm.mismatch_permille = share(prng, 40);
  swarm.cancel_permille = share(prng, 80);
  swarm.short_deadline_percent = share(prng, 20);
  swarm.late_percent = share(prng, 10);
  swarm.leave_permille = share(prng, 30);
  swarm.crash_point_percent = share(prng, 25);
  swarm.latency = std::chrono::microseconds(prng.between(100, 60'000));
  swarm.tail_percent = share(prng, 20);
  swarm.tail = milliseconds(prng.between(10, 1500));
  swarm.work = std::chrono::microseconds(prng.between(0, 20'000));
  swarm.think = milliseconds(prng.chance(1, 2) ? prng.between(2, 150) : prng.between(50, 1500));
  swarm.deadline = milliseconds(prng.between(4'000, 15'000));
  swarm.faults_last = milliseconds(prng.between(5'000, 40'000));
  const std::uint64_t limits[] = {2'000, 4'000, 25'000};
  for (Duration& limit : swarm.heartbeat_limits) limit = milliseconds(limits[prng.below(3)]);
  FaultRates& rates = swarm.rates;
  rates.peer_crash = rate(prng, 2'000, 20'000);
  rates.machine_loss = rate(prng, 5'000, 30'000);
  rates.peer_pause = rate(prng, 2'000, 15'000);
  rates.coordinator_crash = rate(prng, 2'000, 20'000);
  rates.coordinator_pause = rate(prng, 3'000, 20'000);
  rates.control_reset = rate(prng, 500, 8'000);
  rates.control_partition = rate(prng, 2'000, 15'000);
  rates.lane_reset = rate(prng, 200, 5'000);
  rates.channel_reset = rate(prng, 500, 8'000);
  rates.clog = rate(prng, 300, 5'000);
  rates.pair_partition = rate(prng, 3'000, 20'000);
  rates.arrival = rate(prng, 1'000, 8'000);
  swarm.update_cancel_percent = share(prng, 40);
  if (prng.chance(1, 4)) swarm.decisions_bytes = prng.below(3 * protocol::refusal_bytes);
  swarm.subgroups = static_cast<int>(prng.chance(1, 2) ? prng.between(1, 3) : 0);
  // With so little room a view decides one operation; those of subgroups would take too many views.
  if (swarm.decisions_bytes < 3 * protocol::refusal_bytes) {
    swarm.decisions_bytes +=
        static_cast<std::size_t>(swarm.subgroups * swarm.depth) * protocol::refusal_bytes;
  }
  swarm.rooted = prng.chance(1, 3);
  swarm.uneven = prng.chance(1, 3);
  if (prng.chance(1, 8)) swarm.coordinator_limit = milliseconds(prng.between(300, 8'000));
  return swarm;
}

Swarm calm_swarm() {
  Swarm swarm;
  swarm.machines = 9;
  swarm.first_peers = 0;
  swarm.latency = std::chrono::milliseconds(1);
  swarm.lanes = 1;
  return swarm;
}

}  // namespace pyccl::sim
