// S11: nothing grows beyond its limit.
#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

using namespace protocol;

class CheckBounds final : public Check {
 public:
  using Check::Check;

  void settled(const PeerNode& peer) override {
    const Member::Load load = peer.member().load();
    const std::size_t members = std::max<std::size_t>(1, peer.member().view().members.size());
    if (load.open > operations_open_max || load.known > 2 * members * operations_open_max ||
        load.held > members_max * held_max || load.committed > committed_kept_max ||
        load.failures > operations_open_max || load.subgroups > subgroups_max ||
        load.numbers > tags_max) {
      world_.fail("S11", peer.name() + " holds more than its limits allow");
    }
    // What this workload can ever have open is far less; more is a leak.
    const Swarm& swarm = world_.swarm;
    const auto most = static_cast<std::size_t>((swarm.tags + swarm.subgroups) * swarm.depth + 2);
    if (world_.faults_on && (load.open > most || load.known > 8 * most)) {
      world_.fail("S11", peer.name() + " remembers operations that are over");
    }
  }

  void time_passed() override {
    const Coordinator* machine = world_.coordinator.machine();
    if (machine != nullptr && machine->joiner_count() > joiners_max) {
      world_.fail("S11", "more joiners wait than may");
    }
  }
};

}  // namespace

std::unique_ptr<Check> check_bounds(World& world) { return std::make_unique<CheckBounds>(world); }

}  // namespace pyccl::sim
