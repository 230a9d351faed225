// C3: no call outlasts its deadline; an operation, which may need a decision of the others, not
// more than the decision limit beyond it. Only time in which the process itself was stopped is
// excused.
#include <algorithm>
#include <map>
#include <optional>

#include "sim/protocol/workload.hpp"
#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

constexpr Duration slack = 100ms;
constexpr Duration decided_after = 20s;  // detection, recovery and a decision
constexpr Duration calm_after = 60s;     // all late callers have come, all old deadlines passed

class CheckCalls final : public Check {
 public:
  using Check::Check;

  void posted(const PeerNode& peer, OpKey op, const protocol::Call& call) override {
    calls_[peer.id()].operations.emplace(op, call.deadline);
  }
  void committed(const PeerNode& peer, OpId op, bool) override { end(peer, op.key); }
  void withdrawn(const PeerNode& peer, OpKey op) override { end(peer, op); }

  void update_called(const PeerNode& peer, Time deadline) override {
    calls_[peer.id()].update = deadline;
  }
  void update_finished(const PeerNode& peer, const Status&) override {
    auto& update = calls_[peer.id()].update;
    if (!update) world_.fail("calls", peer.name() + " ends an update() that it did not call");
    update.reset();
  }
  void leave_called(const PeerNode& peer, Time deadline) override {
    calls_[peer.id()].leave = deadline;
  }
  // A while after everything has healed no call is in vain any more.
  void failed(const PeerNode& peer, OpKey op, const Status& status) override {
    end(peer, op);
    if (status.code() == Code::timeout && calm_for(calm_after + late_verdict() + lost_step()) &&
        !world_.stopping) {
      world_.fail("liveness", peer.name() + " " + to_string(op) + " timed out: " + status.reason());
    }
  }
  void ended(const PeerNode& peer, const Status& status) override {
    if (status.reason().find("same id") != std::string::npos) {
      world_.fail("join", peer.name() + " was taken for another peer: " + status.reason());
    }
    if (status.code() == Code::coordinator_unavailable && calm_for(decided_after)) {
      world_.fail("liveness", peer.name() + " ends: " + status.reason());
    }
  }
  void died(const PeerNode& peer) override { calls_.erase(peer.id()); }

  void time_passed() override {
    for (const auto& peer : world_.living()) {
      if (!peer->paused()) look(*peer);
    }
  }

 private:
  struct Calls {
    std::map<OpKey, Time> operations;
    std::optional<Time> update;
    std::optional<Time> leave;
  };

  void end(const PeerNode& peer, OpKey op) {
    if (calls_[peer.id()].operations.erase(op) == 0) {
      world_.fail("calls", peer.name() + " ends " + to_string(op) + ", which is not open");
    }
  }

  // Long heartbeat limits give two members that are parted for good more time, too.
  Duration late_verdict() const {
    protocol::Timing timing = world_.timing;
    timing.heartbeat_limit = world_.swarm.heartbeat_limit_most();
    return timing.cut_off_limit() - timing.link_limit;
  }

  // Members of a subgroup that have lost step in its numbers wait in vain while they use it.
  Duration lost_step() const {
    return world_.swarm.subgroups > 0 ? subgroup_window * world_.swarm.deadline : Duration(0);
  }

  bool calm_for(Duration time) const {
    return world_.healed != never && world_.clock.now() > world_.healed + time;
  }

  void look(const PeerNode& peer) {
    const Calls& calls = calls_[peer.id()];
    const auto late = [&](Time deadline, Duration more) {
      return std::max(deadline, peer.paused_until) + more + slack < world_.clock.now();
    };
    for (const auto& [op, deadline] : calls.operations) {
      if (late(deadline, world_.timing.decision_limit_with(world_.swarm.heartbeat_limit_most()))) {
        world_.fail("C3", peer.name() + " still waits: " + peer.member().describe(op));
      }
    }
    if (calls.update && late(*calls.update, Duration(0))) {
      world_.fail("C3", peer.name() + " still waits in update()");
    }
    if (calls.leave && late(*calls.leave, Duration(0))) {
      world_.fail("C3", peer.name() + " still waits in leave()");
    }
  }

  std::map<PeerId, Calls> calls_;
};

}  // namespace

std::unique_ptr<Check> check_calls(World& world) { return std::make_unique<CheckCalls>(world); }

}  // namespace pyccl::sim
