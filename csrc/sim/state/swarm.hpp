// What one seed of the state world is about. Each seed switches some faults off and others up.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "engine/state_sync.hpp"

namespace pyccl::sim {

struct StateSwarm {
  int members = 4;
  int rounds = 2;                      // syncs, one behind the other
  std::vector<std::uint64_t> tensors;  // bytes
  std::uint32_t block_bytes = 64;
  bool strict = false;  // every sync has to go one revision on
  engine::SyncOptions options;
  bool staging_varies = false;  // staged_bytes_max by member, else that of the options
  bool unlike_schema = false;   // of one member
  int contents = 0;             // how like the first states are to each other
  int strategies = 0;
  int deaths = 0;
  int liars = 0;                       // who change their memory while it is being synced
  std::uint64_t reread_percent = 0;    // of them: who look again what they have, unasked
  std::uint64_t failure_permille = 0;  // of operations, for no reason of ours
  std::uint64_t slowness = 1;          // the slowest member's steps, to the others'
  std::uint64_t hop_us = 100;          // the most that anything takes on its way
};

StateSwarm draw_state_swarm(Prng& prng);

// More than one address space holds: there is never memory for such windows.
inline constexpr std::uint64_t impossible_window_bytes = std::uint64_t{1} << 52;

}  // namespace pyccl::sim
