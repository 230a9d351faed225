// What becomes of a run of one seed, in any world.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/time.hpp"

namespace pyccl::sim {

// The first thing that did not hold.
struct Failure {
  Time time;
  std::string invariant;
  std::string text;
};

struct RunResult {
  std::optional<Failure> failure;
  std::uint64_t hash = 0;
  Time end;
  std::uint64_t events = 0;
  std::uint64_t commits = 0;
  std::uint64_t failures = 0;
  std::uint64_t views = 0;
};

}  // namespace pyccl::sim
