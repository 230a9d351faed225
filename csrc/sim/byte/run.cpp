// The phases of a run, and what must be reached in each.
#include "sim/byte/run.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "sim/byte/faults.hpp"
#include "sim/byte/user.hpp"

namespace pyccl::sim {
namespace {

constexpr Duration look_interval = 500ms;
constexpr Duration together_limit = 150s;  // some rounds of the longest deadlines
constexpr Duration stop_limit = 90s;
constexpr Duration leave_limit = 40s;
constexpr int further_ends = 3;

class Run {
 public:
  Run(std::uint64_t seed, const ByteSwarm& swarm, Trace::Text text)
      : world_(seed, swarm, text), faults_(world_) {}

  RunResult run() {
    look_at_times();
    world_.coordinator.start();
    for (int i = 0; i < world_.swarm.first_peers; ++i) faults_.arrive();
    faults_.start();
    world_.run_until(world_.clock.now() + world_.swarm.faults_last);
    faults_.heal();
    for (const auto& peer : world_.living()) peer->user().ends = 0;
    wait_for(together_limit, "liveness", [this] { return apart(); });
    stop_users();
    wait_for(stop_limit, "liveness", [this] { return busy(); });
    world_.checks.tell(&ByteCheck::run_over);
    for (const auto& peer : well()) peer->after(Duration(0), [&peer = *peer] { peer.leave(10s); });
    wait_for(leave_limit, "S13", [this] { return left_over(); });
    return world_.result();
  }

 private:
  void look_at_times() {
    world_.checks.tell(&ByteCheck::time_passed);
    world_.clock.after(look_interval, [this] { look_at_times(); });
  }

  // `missing` says what is not yet as it should be; empty: all is well.
  template <class Missing>
  void wait_for(Duration limit, const char* invariant, Missing missing) {
    const Time end = world_.clock.now() + limit;
    while (world_.running()) {
      const std::string text = missing();
      if (text.empty()) return;
      if (world_.clock.now() >= end) return world_.fail(invariant, text);
      world_.run_until(world_.clock.now() + look_interval);
    }
  }

  std::vector<std::shared_ptr<BytePeer>> well() const {
    auto peers = world_.living();
    std::erase_if(peers, [](const auto& peer) { return peer->paused() || peer->ended(); });
    return peers;
  }

  std::string apart() {
    const auto peers = well();
    if (peers.empty()) {
      faults_.arrive();
      return "nobody is left";
    }
    const protocol::Coordinator* machine = world_.coordinator.machine();
    if (machine == nullptr) return "no coordinator";
    const protocol::View& view = machine->view();
    for (const auto& peer : peers) {
      if (!peer->admitted()) return peer->name() + " is not admitted";
      if (peer->engine().view().epoch != view.epoch) return peer->name() + " has another view";
      if (peer->user().ends < further_ends) return peer->name() + " gets nothing done";
    }
    if (view.members.size() != peers.size()) {
      return std::to_string(view.members.size()) + " members, of whom " +
             std::to_string(peers.size()) + " live";
    }
    return machine->joiner_count() == 0 ? "" : "a joiner waits";
  }

  // All users of a group end behind the same step.
  void stop_users() {
    std::map<std::string, std::uint32_t> last;
    for (const auto& peer : well()) {
      auto& step = last[peer->group()];
      step = std::max(step, peer->user().steps_begun());
    }
    for (const auto& peer : well()) peer->user().stop_at(last[peer->group()]);
  }

  std::string busy() {
    for (const auto& peer : well()) {
      if (!peer->user().idle()) return peer->name() + " still works";
      const engine::PeerLoad load = peer->engine().load();
      if (load.operations + load.slots + load.stash_bytes > 0) {
        return peer->name() + " still holds " + std::to_string(load.operations) +
               " operations and " + std::to_string(load.stash_bytes) + " bytes of early data";
      }
    }
    return "";
  }

  std::string left_over() {
    for (const auto& peer : world_.living()) {
      if (!peer->paused()) return peer->name() + " has not left";
    }
    const protocol::Coordinator* machine = world_.coordinator.machine();
    if (!machine->view().members.empty()) return "the coordinator still has members";
    if (machine->joiner_count() > 0) return "the coordinator still has joiners";
    if (world_.coordinator.connection_count() > 0) return "the coordinator still has connections";
    if (world_.coordinator.open_streams() > 0) return "the coordinator still has streams";
    return "";
  }

  ByteWorld world_;
  ByteFaults faults_;
};

}  // namespace

RunResult run_byte_seed(std::uint64_t seed, Trace::Text text) {
  Prng prng(seed ^ 0xb17eb17eb17eb17eull);
  const ByteSwarm swarm = draw_byte_swarm(prng);
  return Run(seed, swarm, text).run();
}

}  // namespace pyccl::sim
