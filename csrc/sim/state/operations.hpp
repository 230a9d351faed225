// Operations as contract C1 promises them, and no better: the members' calls are numbered in their
// order, each number has one outcome for all survivors, and everybody hears of it when it does.
//
// A member that dies ends its view: what is not committed then is committed for all that are left,
// or fails for all that are left, those included who call it later. What none of them has called
// starts in the next view. Whether a call fits the view in which it starts is what the engine says.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "engine/operation.hpp"
#include "engine/request.hpp"
#include "protocol/messages.hpp"
#include "sim/state/member.hpp"

namespace pyccl::sim {

class StateOperations {
 public:
  explicit StateOperations(StateWorld& world) : world_(world) {}

  const StateView& view() const { return view_; }
  // Between two syncs, when nothing is open.
  void gather(const std::vector<StateMember*>& members);
  void post(StateMember&, engine::Request);
  void died(StateMember&);

  std::uint64_t committed() const { return committed_; }
  std::uint64_t failed() const { return failed_; }
  // Whether one has failed that no death explains.
  bool disturbed() const { return disturbed_; }
  void calm() { disturbed_ = false; }

 private:
  struct Post {
    StateMember* member = nullptr;
    engine::Request request;
    protocol::Descriptor descriptor;
    std::vector<PeerId> ranks;  // at the call
    bool started = false;
  };
  struct Operation {
    std::uint64_t number = 0;
    std::optional<collectives::Kind> kind;
    std::map<PeerId, Post> posts;
    std::optional<Status> outcome;
    bool moved = false;
  };

  void see(StateMember&);
  void start(Operation&, Post&);
  Status may_start(Post&) const;
  bool alike(const Operation&, const Post&, const Post&);
  void all_started(Operation&);
  void refuse(Operation&, Status);
  void freeze();
  void decide(Operation&, const Status&);
  void tell(const Operation&, StateMember&);
  void move(Operation&);
  void spoil(Operation&);
  std::vector<Post*> in_rank_order(Operation&) const;
  Rank rank_of(PeerId) const;
  std::string name(const Operation&) const;

  StateWorld& world_;
  StateView view_;
  std::set<PeerId> dead_;  // and still in the view
  std::map<PeerId, StateMember*> members_;
  std::map<std::uint64_t, std::unique_ptr<Operation>> operations_;
  engine::Pools pools_{4096};
  std::uint64_t committed_ = 0;
  std::uint64_t failed_ = 0;
  bool disturbed_ = false;
};

}  // namespace pyccl::sim
