// What one seed is about. Each seed switches some faults off and others up: a run where everything
// goes wrong all the time never gets far enough for the deep flaws.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/prng.hpp"
#include "base/time.hpp"
#include "protocol/limits.hpp"

namespace pyccl::sim {

// Mean time between two faults of a kind, all over the world; zero: never.
struct FaultRates {
  Duration peer_crash{0};
  Duration machine_loss{0};
  Duration peer_pause{0};
  Duration coordinator_crash{0};
  Duration coordinator_pause{0};
  Duration control_reset{0};
  Duration control_partition{0};
  Duration lane_reset{0};
  Duration channel_reset{0};
  Duration clog{0};
  Duration pair_partition{0};
  Duration arrival{0};  // of new peers
};

struct Swarm {
  int machines = 4;
  int first_peers = 3;
  int groups = 1;
  int tags = 1;
  int depth = 1;      // operations of a tag that a user has in flight at once
  int lanes = 1;      // connections of a channel
  int pieces = 1;     // of a contribution
  int subgroups = 0;  // of whose operations some come with each number of the first tag
  bool rooted = false;
  bool uneven = false;
  bool side_thread = false;
  bool check_codec = false;
  std::uint64_t update_every = 0;  // steps; besides the hint
  std::uint64_t raise_percent = 0;
  std::uint64_t mismatch_permille = 0;
  std::uint64_t cancel_permille = 0;
  std::uint64_t update_cancel_percent = 0;
  std::uint64_t short_deadline_percent = 0;
  std::uint64_t late_percent = 0;
  std::uint64_t leave_permille = 0;
  std::size_t decisions_bytes = protocol::decisions_bytes_max;
  std::uint64_t crash_point_percent = 0;  // coordinator, between the effects of one decision
  Duration latency{1'000'000};
  std::uint64_t tail_percent = 0;
  Duration tail{0};
  Duration work{0};   // between a whole result and telling so
  Duration think{0};  // of users, between steps
  Duration deadline{10'000'000'000};
  Duration faults_last{30'000'000'000};
  // The coordinator's, in its odd and in its even lives; peers ask for the default.
  Duration heartbeat_limits[2] = {std::chrono::seconds(4), std::chrono::seconds(4)};
  Duration heartbeat_limit_most() const {
    return std::max(heartbeat_limits[0], heartbeat_limits[1]);
  }
  std::optional<Duration> coordinator_limit;  // of the peers; none: the default
  FaultRates rates;
};

Swarm draw_swarm(Prng& prng);

// For scenarios: nothing goes wrong but what the script says.
Swarm calm_swarm();

}  // namespace pyccl::sim
