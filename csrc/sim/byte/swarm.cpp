// Draws of the swarm. Near nothing and near too much both find things, hence the wide ranges.
#include "sim/byte/swarm.hpp"

#include <algorithm>

namespace pyccl::sim {
namespace {

Duration milliseconds(std::uint64_t count) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(count));
}

Duration microseconds(std::uint64_t count) {
  return std::chrono::microseconds(static_cast<std::int64_t>(count));
}

// Off in half of the seeds, else between the bounds. The draw is made in any case, so that a change
// of one share leaves the others as they are.
Duration rate(Prng& prng, std::uint64_t low_ms, std::uint64_t high_ms) {
  const std::uint64_t drawn = prng.between(low_ms, high_ms);
  return milliseconds(prng.chance(1, 2) ? drawn : 0);
}

std::uint64_t share(Prng& prng, std::uint64_t most) {
  const std::uint64_t drawn = prng.between(1, most);
  return prng.chance(1, 2) ? drawn : 0;
}

NetworkOptions draw_network(Prng& prng) {
  NetworkOptions network;
  network.latency_min = microseconds(prng.between(20, 2'000));
  network.latency_max = network.latency_min + microseconds(prng.between(0, 8'000));
  network.tail_percent = static_cast<std::uint32_t>(share(prng, 10));
  network.tail_max = milliseconds(prng.between(5, 400));
  network.bytes_per_second = prng.between(100'000, 20'000'000);
  network.buffer_bytes = prng.between(300, 20'000);
  network.split_percent = static_cast<std::uint32_t>(prng.between(5, 80));
  network.silence_limit = milliseconds(prng.between(3'000, 10'000));
  return network;
}

// Few operations, of which one exceeds what may be sent to a peer that has not called it yet.
void make_large(ByteSwarm& swarm) {
  swarm.count_most = 200'000;
  swarm.segment_bytes = 16 * 1024;
  swarm.tags = swarm.depth = 1;
  swarm.machines = swarm.first_peers = 3;
  swarm.think = 2s;
  swarm.faults_last = std::min<Duration>(swarm.faults_last, 6s);
  swarm.network.buffer_bytes = 256 * 1024;
  swarm.network.bytes_per_second = 50'000'000;
}

// All live and do as they should; only streams break, again and again.
void make_loyal(ByteSwarm& swarm, Prng& prng) {
  swarm.mismatch_permille = swarm.cancel_permille = swarm.leave_permille = 0;
  swarm.short_deadline_percent = swarm.late_percent = 0;
  swarm.crash_point_percent = swarm.write_failure_percent = 0;
  swarm.connections = std::max(swarm.connections, 2u);
  const ByteFaultRates drawn = swarm.rates;
  swarm.rates = {};
  swarm.rates.stream_reset = milliseconds(prng.between(30, 500));
  swarm.rates.stream_clog = drawn.stream_clog;
  swarm.rates.bit_flip = drawn.bit_flip;
  swarm.rates.arrival = drawn.arrival;
}

ByteFaultRates draw_rates(Prng& prng) {
  ByteFaultRates rates;
  rates.peer_crash = rate(prng, 2'000, 20'000);
  rates.power_loss = rate(prng, 5'000, 30'000);
  rates.peer_pause = rate(prng, 2'000, 15'000);
  rates.coordinator_crash = rate(prng, 2'000, 20'000);
  rates.coordinator_pause = rate(prng, 4'000, 20'000);
  rates.stream_reset = rate(prng, 100, 4'000);
  rates.pair_reset = rate(prng, 500, 8'000);
  rates.stream_clog = rate(prng, 200, 4'000);
  rates.path_clog = rate(prng, 300, 5'000);
  rates.partition = rate(prng, 3'000, 20'000);
  rates.bit_flip = rate(prng, 300, 8'000);
  rates.stranger = rate(prng, 200, 5'000);
  rates.arrival = rate(prng, 1'000, 8'000);
  return rates;
}

}  // namespace

ByteSwarm draw_byte_swarm(Prng& prng) {
  ByteSwarm swarm;
  swarm.machines = static_cast<int>(prng.between(2, 8));
  const auto machines = static_cast<std::uint64_t>(swarm.machines);
  swarm.first_peers = static_cast<int>(prng.between((machines + 1) / 2, machines));
  swarm.groups = prng.chance(1, 5) ? 2 : 1;
  swarm.mirror = prng.chance(1, 6);
  swarm.tags = static_cast<int>(prng.between(1, 3));
  swarm.depth = static_cast<int>(prng.between(1, 3));
  swarm.connections = static_cast<std::uint32_t>(prng.between(1, 4));
  swarm.segment_bytes = 64u << prng.below(4);
  swarm.count_most = prng.chance(1, 4) ? 2000 : prng.chance(1, 2) ? 400 : 60;
  swarm.update_every = prng.chance(1, 4) ? prng.between(2, 6) : 0;
  swarm.raise_percent = share(prng, 60);
  swarm.barrier_percent = share(prng, 20);
  swarm.weight_percent = share(prng, 60);
  swarm.list_percent = share(prng, 40);
  swarm.mismatch_permille = share(prng, 40);
  swarm.cancel_permille = share(prng, 80);
  swarm.short_deadline_percent = share(prng, 20);
  swarm.late_percent = share(prng, 10);
  swarm.leave_permille = share(prng, 30);
  swarm.crash_point_percent = share(prng, 20);
  swarm.write_failure_percent = share(prng, 10);
  swarm.think = milliseconds(prng.between(5, 800));
  swarm.deadline = milliseconds(prng.between(4'000, 15'000));
  swarm.faults_last = milliseconds(prng.between(4'000, 20'000));
  swarm.network = draw_network(prng);
  swarm.rates = draw_rates(prng);
  const bool loyal = prng.chance(1, 6);
  if (loyal) make_loyal(swarm, prng);
  if (prng.chance(1, 40)) make_large(swarm);
  const Duration connect_limit = milliseconds(prng.between(3'000, 40'000));
  if (prng.chance(1, 2) && !loyal) swarm.connect_limit = connect_limit;
  const std::uint64_t update_cancel_percent = share(prng, 40);
  if (!loyal) swarm.update_cancel_percent = update_cancel_percent;
  if (prng.chance(1, 4)) swarm.connections_factor = 5;
  if (prng.chance(2, 3)) swarm.other_kinds_percent = prng.between(20, 100);
  if (prng.chance(1, 3)) swarm.quantized_percent = prng.between(20, 100);
  return swarm;
}

}  // namespace pyccl::sim
