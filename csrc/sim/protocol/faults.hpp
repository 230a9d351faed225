// What goes wrong in a run, and the turn at its end: everything heals but for some faults that stay
// for good.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {

class Faults {
 public:
  explicit Faults(World& world) : world_(world) {}

  void start();
  // Some peers are lost for good; all else is as it should be from here on.
  void heal();

  // A peer with a user on a machine where none lives; false if there is no such machine.
  bool arrive();

 private:
  void every(Duration mean, std::function<void()> fault);
  Duration some(std::uint64_t low_ms, std::uint64_t high_ms);
  std::shared_ptr<PeerNode> any_peer();
  MachineId any_machine();
  void pause_peer();
  void pause_coordinator();
  void reset_control();
  void reset_lanes(bool all);
  void clog();
  void part_from_coordinator();
  void part_pair();

  World& world_;
};

}  // namespace pyccl::sim
