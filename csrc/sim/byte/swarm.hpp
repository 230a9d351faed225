// What one seed of the byte world is about. Each seed switches some faults off and others up.
#pragma once

#include <cstdint>

#include "base/prng.hpp"
#include "base/time.hpp"
#include "sim/network.hpp"

namespace pyccl::sim {

// Mean time between two faults of a kind, all over the world; zero: never.
struct ByteFaultRates {
  Duration peer_crash{0};
  Duration power_loss{0};
  Duration peer_pause{0};
  Duration coordinator_crash{0};
  Duration coordinator_pause{0};
  Duration stream_reset{0};
  Duration pair_reset{0};  // all streams between two hosts at once
  Duration stream_clog{0};
  Duration path_clog{0};
  Duration partition{0};
  Duration bit_flip{0};
  Duration stranger{0};  // who dials somebody and does not speak the protocol
  Duration arrival{0};   // of new peers
};

struct ByteSwarm {
  int machines = 4;
  int first_peers = 3;
  int groups = 1;
  bool mirror = false;  // the last machine's peers add nothing
  int tags = 1;
  int depth = 1;  // operations of a tag that a user has in flight at once
  std::uint32_t connections = 2;
  std::uint32_t connections_factor = 1;  // on every other machine: so many times as many
  std::uint32_t segment_bytes = 256;
  std::uint64_t count_most = 200;  // elements of an array
  std::uint64_t update_every = 0;  // operations; besides the hint
  std::uint64_t raise_percent = 0;
  std::uint64_t barrier_percent = 0;
  std::uint64_t other_kinds_percent = 0;  // than all-reduce
  std::uint64_t weight_percent = 0;       // of all operations have weights but 1
  std::uint64_t list_percent = 0;
  std::uint64_t quantized_percent = 0;  // of the operations that can be
  std::uint64_t mismatch_permille = 0;
  std::uint64_t cancel_permille = 0;
  std::uint64_t update_cancel_percent = 0;
  std::uint64_t short_deadline_percent = 0;
  std::uint64_t late_percent = 0;
  std::uint64_t leave_permille = 0;
  std::uint64_t crash_point_percent = 0;    // coordinator, when it has written its state
  std::uint64_t write_failure_percent = 0;  // of its state
  Duration think{0};
  Duration deadline = 10s;
  Duration connect_limit{0};  // until a peer has to be a member; zero: it waits for ever
  Duration faults_last = 20s;
  NetworkOptions network;
  ByteFaultRates rates;
};

ByteSwarm draw_byte_swarm(Prng& prng);

}  // namespace pyccl::sim
