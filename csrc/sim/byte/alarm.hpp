// Gives a host a turn when the deadline of what runs on it has come.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>

#include "base/time.hpp"
#include "sim/clock.hpp"
#include "sim/network.hpp"

namespace pyccl::sim {

class Alarm {
 public:
  Alarm(Clock& clock, SimulatedHost& host) : clock_(clock), host_(host) {}

  // An earlier one that is set already stays: a turn too many harms nobody.
  void set(std::optional<Time> when) {
    if (!when || *when >= *armed_) return;
    const Time at = std::max(*when, clock_.now());
    *armed_ = at;
    clock_.at(at, [armed = armed_, at, &host = host_] {
      if (*armed == at) *armed = never;
      host.wake();
    });
  }

 private:
  Clock& clock_;
  SimulatedHost& host_;
  std::shared_ptr<Time> armed_ = std::make_shared<Time>(never);
};

}  // namespace pyccl::sim
