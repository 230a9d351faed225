// A member of the state world: tensors, the machine that syncs them, and the host that runs it at a
// pace of its own.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/prng.hpp"
#include "engine/shared_state.hpp"
#include "engine/state_sync.hpp"

namespace pyccl::sim {

class StateWorld;

// What makes the members' operations meet: the view and its number.
struct StateView {
  std::uint64_t number = 0;
  std::vector<PeerId> peers;  // in rank order
};

class StateMember {
 public:
  StateMember(StateWorld&, PeerId, std::vector<engine::Tensor> tensors, bool strict,
              std::uint64_t slowness);

  PeerId peer() const { return peer_; }
  const std::string& name() const { return name_; }
  engine::SharedState& state() { return *state_; }
  const engine::SharedState& state() const { return *state_; }
  Bytes bits() const;  // of all blocks
  void write(const Bytes& bits);

  void begin_sync(const engine::SyncOptions&);
  bool in_sync() const { return sync_ != nullptr; }
  bool over() const { return sync_ && sync_->need() == engine::StateSync::Need::over; }
  bool digested() const { return digests_ > 0; }
  const engine::StateSync& sync() const { return *sync_; }
  const engine::SyncOptions& options() const { return options_; }
  void end_sync() { sync_.reset(); }
  // Operations of this sync, and how many of them have not ended here.
  std::uint64_t posted() const { return next_number - first_number_; }
  std::uint64_t open() const { return next_number - first_open_; }

  // By the operations' layer.
  const StateView& view() const { return view_; }
  void see(const StateView& view) { view_ = view; }
  void ended(std::uint64_t number, Status status, std::uint64_t bytes);

  // Other bytes, while nobody expects it. `rereads`: and, until it has called its second operation,
  // other digests.
  void lie(Prng&, bool rereads);
  void die() { alive_ = false; }
  bool alive() const { return alive_; }

  std::uint64_t next_number = 0;  // of an operation

 private:
  void wake();
  void step();
  bool act();
  void digest();
  void post();
  void take_result();

  StateWorld& world_;
  const PeerId peer_;
  const std::string name_;
  const std::uint64_t slowness_;
  std::vector<Bytes> memory_;  // by tensor
  std::unique_ptr<engine::SharedState> state_;
  engine::SyncOptions options_;
  std::unique_ptr<engine::StateSync> sync_;
  StateView view_;
  std::uint64_t first_number_ = 0;  // of this sync
  std::uint64_t first_open_ = 0;    // of the operations that have not ended here
  std::map<std::uint64_t, std::pair<Status, std::uint64_t>> results_;
  int digests_ = 0;  // in this sync
  bool alive_ = true;
  bool awake_ = false;
};

}  // namespace pyccl::sim
