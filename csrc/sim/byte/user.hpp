// What a training loop does with a peer: steps of operations over some tags, update() when joiners
// wait; sometimes late, impatient, wrong or gone.
//
// All users of a group are in step by the numbers of their operations: a step is over when each tag
// has reached the step's last number. So who was refused, gave up or came later finds its place.
#pragma once

#include <cstdint>
#include <map>

#include "sim/byte/peer.hpp"

namespace pyccl::sim {

class ByteWorld;

class ByteUser {
 public:
  ByteUser(ByteWorld& world, BytePeer& peer) : world_(world), peer_(peer) {}

  void installed(const protocol::View& view);
  void finished(const Posting& posting, const engine::Finished& result);
  void update_finished(const Status& status);

  // Begin no step from this one on.
  void stop_at(std::uint32_t step) { stop_ = step; }
  std::uint32_t steps_begun() const { return step_ + (in_step_ ? 1 : 0); }
  bool idle() const { return idle_ && peer_.open().empty(); }
  // Operations that came to their proper end: committed, or nobody had anything to contribute.
  int ends = 0;

 private:
  void think();
  void begin_step();
  void go_on();
  void post(std::uint32_t tag);
  void step_over();
  void update();
  std::uint32_t step_of_numbers() const;

  ByteWorld& world_;
  BytePeer& peer_;
  bool begun_ = false;
  bool idle_ = false;
  bool in_step_ = false;
  bool hint_ = false;       // of any operation of the step: the same on all members (rule R11)
  bool committed_ = false;  // any operation of the step
  std::uint32_t step_ = 0;
  std::uint32_t stop_ = 0xffffffff;
  std::map<std::uint32_t, std::uint32_t> next_;  // number of the next operation, by tag
};

}  // namespace pyccl::sim
