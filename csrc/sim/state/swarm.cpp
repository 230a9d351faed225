// Draws of the swarm. Much is small on purpose: a state of two blocks meets every rare order of
// events more often than one of a thousand.
#include "sim/state/swarm.hpp"

#include <algorithm>

namespace pyccl::sim {
namespace {

std::vector<std::uint64_t> draw_tensors(Prng& prng, std::uint32_t block_bytes) {
  std::vector<std::uint64_t> tensors(prng.chance(1, 3) ? prng.below(13) : prng.between(1, 4));
  for (std::uint64_t& bytes : tensors) {
    switch (prng.below(4)) {
      case 0: bytes = prng.below(block_bytes); break;
      case 1: bytes = block_bytes * prng.between(1, 3); break;
      case 2: bytes = prng.below(std::uint64_t{block_bytes} * 6); break;
      default: bytes = prng.below(std::uint64_t{block_bytes} * 14); break;
    }
  }
  return tensors;
}

void draw_options(StateSwarm& swarm, Prng& prng) {
  const std::uint64_t block = swarm.block_bytes;
  swarm.options.window_bytes =
      prng.chance(1, 3) ? prng.between(1, block) : block * prng.between(1, 8);
  swarm.options.windows_ahead = prng.between(1, 4);
  swarm.options.pass_bytes = prng.chance(1, 3) ? block : block * prng.between(1, 40);
  switch (prng.below(3)) {
    case 0: swarm.options.staged_bytes_max = 0; break;
    case 1: swarm.options.staged_bytes_max = block * prng.between(1, 12); break;
    default: swarm.options.staged_bytes_max = block * 1000; break;
  }
  swarm.staging_varies = prng.chance(1, 3);
  if (prng.chance(1, 40)) swarm.options.window_bytes = impossible_window_bytes;
}

}  // namespace

StateSwarm draw_state_swarm(Prng& prng) {
  StateSwarm swarm;
  swarm.members = static_cast<int>(prng.between(2, 8));
  swarm.rounds = static_cast<int>(prng.between(1, 4));
  swarm.block_bytes = 16u << (2 * prng.below(3));
  swarm.tensors = draw_tensors(prng, swarm.block_bytes);
  swarm.strict = prng.chance(1, 4);
  draw_options(swarm, prng);
  swarm.unlike_schema = prng.chance(1, 20);
  swarm.contents = static_cast<int>(prng.below(7));
  swarm.strategies = prng.chance(1, 2) ? 0 : static_cast<int>(prng.between(1, 2));
  swarm.deaths = prng.chance(1, 2) ? static_cast<int>(prng.between(1, 3)) : 0;
  swarm.liars = prng.chance(1, 4) ? static_cast<int>(prng.between(1, 3)) : 0;
  swarm.reread_percent = prng.chance(1, 2) ? prng.between(10, 60) : 0;
  swarm.failure_permille = prng.chance(1, 3) ? prng.between(5, 100) : 0;
  swarm.slowness = prng.chance(1, 2) ? prng.between(2, 30) : 1;
  swarm.hop_us = prng.between(2, 400);
  return swarm;
}

}  // namespace pyccl::sim
