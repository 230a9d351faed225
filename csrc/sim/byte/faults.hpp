// What goes wrong in a run of the byte world, and the turn at its end: everything heals but for
// some faults that stay for good.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sim/byte/stranger.hpp"
#include "sim/byte/world.hpp"

namespace pyccl::sim {

class ByteFaults {
 public:
  explicit ByteFaults(ByteWorld& world) : world_(world) {}

  void start();
  // Some peers are lost for good; all else is as it should be from here on.
  void heal();
  // A peer with a user on a machine where none lives; false if there is no such machine.
  bool arrive();

 private:
  void every(Duration mean, std::function<void()> fault);
  Duration some(std::uint64_t low_ms, std::uint64_t high_ms);
  std::shared_ptr<BytePeer> any_peer();
  std::string any_host();
  std::pair<std::string, std::string> any_path();
  void crash_peer();
  void pause_peer();
  void pause_coordinator();
  void part();
  void send_stranger();

  ByteWorld& world_;
  std::vector<std::unique_ptr<Stranger>> strangers_;
};

}  // namespace pyccl::sim
