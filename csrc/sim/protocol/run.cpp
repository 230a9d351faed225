// The phases of a run, and what must be reached in each.
#include "sim/protocol/run.hpp"

#include <algorithm>
#include <string>

#include "sim/protocol/faults.hpp"
#include "sim/protocol/user.hpp"

namespace pyccl::sim {
namespace {

constexpr Duration look_interval = 500ms;
constexpr Duration together_limit = 150s;  // some rounds of the longest deadlines
constexpr Duration stop_limit = 90s;
constexpr Duration leave_limit = 20s;
constexpr int further_commits = 3;

User& user_of(const PeerNode& peer) { return static_cast<User&>(*peer.caller); }

class Run {
 public:
  Run(std::uint64_t seed, const Swarm& swarm, Trace::Text text)
      : world_(seed, swarm, text), faults_(world_) {}

  RunResult run() {
    look_at_times();
    world_.coordinator.start();
    for (int i = 0; i < world_.swarm.first_peers; ++i) faults_.arrive();
    faults_.start();
    world_.run_until(world_.clock.now() + world_.swarm.faults_last);
    faults_.heal();
    for (const auto& peer : world_.living()) user_of(*peer).commits = 0;
    wait_for(together_limit, "liveness", [this] { return apart(); });
    stop_users();
    wait_for(stop_limit, "liveness", [this] { return busy(); });
    world_.checks.finished();
    for (const auto& peer : well()) peer->leave(10s);
    wait_for(leave_limit, "S13", [this] { return left_over(); });
    return {world_.failure(), world_.trace.hash(), world_.clock.now(), world_.events(),
            world_.commits,   world_.failures,     world_.views};
  }

 private:
  void look_at_times() {
    world_.checks.time_passed();
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

  std::vector<std::shared_ptr<PeerNode>> well() const {
    auto peers = world_.living();
    std::erase_if(peers, [](const auto& peer) { return peer->paused(); });
    return peers;
  }

  std::string apart() {
    const auto peers = well();
    const protocol::Coordinator* machine = world_.coordinator.machine();
    const protocol::View& view = machine->view();
    if (peers.empty()) {
      faults_.arrive();
      return "nobody is left";
    }
    for (const auto& peer : peers) {
      const protocol::Member& member = peer->member();
      if (!member.admitted()) return peer->name() + " is not admitted";
      if (member.frozen()) return peer->name() + " is frozen";
      if (member.view().epoch != view.epoch) return peer->name() + " has another view";
      if (user_of(*peer).commits < further_commits) return peer->name() + " commits too little";
    }
    if (view.members.size() != peers.size()) {
      return std::to_string(view.members.size()) + " members, of whom " +
             std::to_string(peers.size()) + " live";
    }
    return machine->joiner_count() == 0 ? "" : "a joiner waits";
  }

  // All users of a group end behind the same number.
  void stop_users() {
    world_.stopping = true;
    std::map<std::string, std::uint32_t> last;
    for (const auto& peer : well()) {
      auto& seq = last[peer->group()];
      seq = std::max(seq, user_of(*peer).next_seq());
    }
    for (const auto& peer : well()) user_of(*peer).stop_at(last[peer->group()]);
  }

  std::string busy() {
    for (const auto& peer : well()) {
      if (!user_of(*peer).idle()) return peer->name() + " still works";
      const auto load = peer->member().load();
      if (load.open + load.known + load.held > 0) return peer->name() + " still holds operations";
    }
    return "";
  }

  std::string left_over() {
    for (const auto& peer : well()) return peer->name() + " has not left";
    const protocol::Coordinator* machine = world_.coordinator.machine();
    if (!machine->view().members.empty()) return "the coordinator still has members";
    if (machine->joiner_count() > 0) return "the coordinator still has joiners";
    return "";
  }

  World world_;
  Faults faults_;
};

}  // namespace

RunResult run_protocol_seed(std::uint64_t seed, Trace::Text text) {
  Prng prng(seed ^ 0x5eed5eed5eed5eedull);
  const Swarm swarm = draw_swarm(prng);
  return Run(seed, swarm, text).run();
}

}  // namespace pyccl::sim
