// How long an operation takes where it is known what every way takes: the whole engine over
// simulated links of a given latency and rate, with nothing going wrong. Processors cost nothing
// here, so what is seen is what the plans and the protocol cost in hops and bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/time.hpp"
#include "collectives/select.hpp"

namespace pyccl::sim {

struct TrialOptions {
  collectives::Kind kind = collectives::Kind::all_reduce;  // exchange: of neighbours, by pairs
  collectives::Algorithm algorithm = collectives::Algorithm::automatic;
  std::size_t peers = 16;
  Duration latency = 50ms;                       // one way, between any two
  std::uint64_t bytes_per_second = 125'000'000;  // that a peer sends, and that it gets
  std::uint64_t bytes = 1 << 20;                 // f32: of the whole, or of each rank's share
  struct SlowPair {
    std::size_t a = 0;
    std::size_t b = 0;
    std::uint64_t bytes_per_second = 0;
  };
  std::optional<SlowPair> slow;  // one pair whose way is narrower
  int rounds = 2;                // of calls, all at once, and then an update()
};

// What one round of calls took, from their begin to the last peer.
struct TrialRound {
  std::string algorithm;
  Duration whole{};      // until every result was there
  Duration committed{};  // until every call had ended
  Duration sending{};    // what the busiest peer's bytes take on its link
};

struct TrialResult {
  std::string failure;  // empty: all results were right
  std::vector<TrialRound> rounds;
};

TrialResult run_trial(const TrialOptions& options);

}  // namespace pyccl::sim
