// S1 and C2, one history: an epoch names one membership; at each member epochs only rise, and each
// view that it installs is the successor of the one before; no view has two successors.
#include <map>
#include <utility>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

class CheckViews final : public Check {
 public:
  using Check::Check;

  void persisted(const protocol::CoordinatorState& state) override {
    const protocol::View& view = state.view;
    if (!view.epoch) return;
    // A restarted coordinator writes the same view again.
    const auto [known, fresh] = views_.try_emplace({view.run, view.epoch}, view);
    if (!fresh && known->second.members != view.members) {
      return world_.fail("S1", "view " + to_string(view.epoch) + " was made twice");
    }
    if (!fresh) return;
    const auto [other, first] = successor_.try_emplace({view.run, view.parent}, view.epoch);
    if (!first && view.parent) {
      world_.fail("S1", "view " + to_string(view.parent) + " has two successors, " +
                            to_string(other->second) + " and " + to_string(view.epoch));
    }
  }

  void installed(const PeerNode& peer, const protocol::View& view) override {
    const auto known = views_.find({view.run, view.epoch});
    if (known == views_.end() || known->second.members != view.members) {
      return world_.fail("S1", peer.name() + " installs a view " + to_string(view.epoch) +
                                   " that was never durable");
    }
    const GroupId group = group_id(view.find(peer.id())->group);
    const auto own = [group](const protocol::View& one) {
      const protocol::GroupLinks* links = one.links_of(group);
      return links == nullptr ? protocol::GroupLinks{} : *links;
    };
    if (own(view) != own(known->second)) {
      return world_.fail("S1", peer.name() + " would choose by other links than those of view " +
                                   to_string(view.epoch));
    }
    const auto [last, first] = last_.try_emplace(peer.id(), view.epoch);
    if (first) return;
    if (view.parent != last->second || view.epoch <= last->second) {
      world_.fail("S1", peer.name() + " goes from view " + to_string(last->second) + " to " +
                            to_string(view.epoch) + ", whose parent is " + to_string(view.parent));
    }
    last->second = view.epoch;
  }

 private:
  std::map<std::pair<RunId, Epoch>, protocol::View> views_;
  std::map<std::pair<RunId, Epoch>, Epoch> successor_;
  std::map<PeerId, Epoch> last_;
};

}  // namespace

std::unique_ptr<Check> check_views(World& world) { return std::make_unique<CheckViews>(world); }

}  // namespace pyccl::sim
