// The state world: machines that bring all members' tensors to one state, over operations that keep
// contract C1 and nothing else. One thread and one seed, so every run can be repeated.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "sim/clock.hpp"
#include "sim/result.hpp"
#include "sim/state/checks.hpp"
#include "sim/state/member.hpp"
#include "sim/state/operations.hpp"
#include "sim/state/swarm.hpp"
#include "sim/trace.hpp"

namespace pyccl::sim {

class StateWorld {
 public:
  StateWorld(std::uint64_t seed, const StateSwarm& swarm, Trace::Text text);

  // In some time, and in up to `factor` times as much.
  void later(std::uint64_t factor, Clock::Action action);
  // Something has happened that somebody may die behind, or lie.
  void moment();
  // In so many moments.
  void plan(std::uint64_t moments, std::function<void()> action);
  void forget_plans() { plans_.clear(); }

  StateMember& spawn(bool unlike);
  std::vector<StateMember*> living() const;
  void kill(StateMember&);

  void fail(std::string invariant, std::string text);
  bool running() const { return !failure_; }
  // Until nothing happens any more, or something failed.
  void run_out();
  RunResult result() const;

  void say(const std::string& text) {
    if (trace.wants_text()) trace.line(clock.now(), text);
  }

  const StateSwarm swarm;
  Clock clock;
  Trace trace;
  // One stream for each concern: a new draw in one does not shift the others.
  Prng pace;
  Prng layer;
  Prng faults;
  Prng contents;
  StateOperations operations;
  StateChecks checks;
  std::uint64_t views = 0;

 private:
  struct Plan {
    std::uint64_t moments;
    std::function<void()> action;
  };

  std::vector<std::unique_ptr<StateMember>> members_;  // the dead as well
  std::vector<Plan> plans_;
  std::uint64_t events_ = 0;
  std::optional<Failure> failure_;
};

}  // namespace pyccl::sim
