// What a user's training loop does with a peer: batches of operations over some tags and subgroups,
// update() when joiners wait, sometimes late, impatient, wrong or gone.
#pragma once

#include <map>
#include <optional>

#include "sim/protocol/peer_node.hpp"
#include "sim/protocol/workload.hpp"

namespace pyccl::sim {

class World;

class User final : public Caller {
 public:
  User(World& world, PeerNode& peer) : world_(world), peer_(peer) {}

  void installed(const protocol::View&) override;
  void committed(OpKey op, bool hint) override;
  void failed(OpKey op, const Status&) override;
  void withdrawn(OpKey op) override;
  void update_finished(const Status&) override;
  void gone() override {}

  // Begin no step from this number of the first tag on.
  void stop_at(std::uint32_t seq) { stop_ = seq; }
  std::uint32_t next_seq() const { return next_seq_; }
  bool idle() const { return idle_ && open_ == 0 && side_open_ == 0; }
  int commits = 0;

 private:
  void think();
  void step();
  void post(std::uint32_t tag);
  std::optional<OpKey> post(protocol::Call call);
  void post_of_subgroups(std::uint32_t seq);
  void spoil(protocol::Call& call);
  void use_ended_subgroup();
  void post_side();
  void over(OpKey op);
  void batch_over();
  bool update();
  Calling calling() const;

  World& world_;
  PeerNode& peer_;
  bool begun_ = false;
  bool posting_ = false;
  bool idle_ = false;
  int open_ = 0;
  int side_open_ = 0;
  bool hint_ = false;  // of any operation of the batch: the same on all members (rule R11)
  int updates_ = 0;    // begun and ended: odd while one waits
  std::uint32_t next_seq_ = 0;
  std::uint32_t stop_ = 0xffffffff;
  std::uint32_t subgroups_behind_ = 0;            // numbers below have had their subgroups
  std::map<OpKey, protocol::Call> of_subgroups_;  // open
  std::optional<protocol::Call> last_of_subgroup_;
};

}  // namespace pyccl::sim
