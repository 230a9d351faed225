// S1 one membership per epoch, epochs only rise; C2: what a member installs is what was written.
#include <map>

#include "sim/byte/world.hpp"

namespace pyccl::sim {
namespace {

class CheckViews final : public ByteCheck {
 public:
  using ByteCheck::ByteCheck;

  void persisted(const protocol::CoordinatorState& state) override {
    const auto [known, first] = written_.try_emplace(state.view.epoch, state.view);
    if (!first && known->second.members != state.view.members) {
      world_.fail("S1", "two memberships in view " + to_string(state.view.epoch));
    }
  }

  void installed(const BytePeer& peer, const protocol::View& view) override {
    Epoch& last = last_[peer.id()];
    if (view.epoch <= last)
      world_.fail("S1", peer.name() + " goes back to " + to_string(view.epoch));
    last = view.epoch;
    const auto written = written_.find(view.epoch);
    if (written == written_.end()) {
      world_.fail("C2", peer.name() + " installs view " + to_string(view.epoch) +
                            ", which was never written");
    } else if (written->second.members != view.members) {
      world_.fail("S1", peer.name() + " has other members in view " + to_string(view.epoch));
    } else if (links_of(written->second, peer) != links_of(view, peer)) {
      world_.fail("S1", peer.name() + " has other links in view " + to_string(view.epoch));
    }
    if (view.find(peer.id()) == nullptr) {
      world_.fail("S5", peer.name() + " installs a view without itself");
    }
  }

  void finished(const BytePeer& peer, const Posting&, const engine::Finished& result,
                bool) override {
    if (result.status.ok() && over_[peer.id()]) {
      world_.fail("S5", peer.name() + " commits after its end");
    }
  }

  void ended(const BytePeer& peer, const Status&) override { over_[peer.id()] = true; }

 private:
  static protocol::GroupLinks links_of(const protocol::View& view, const BytePeer& peer) {
    const protocol::GroupLinks* links = view.links_of(group_id(peer.group()));
    return links == nullptr ? protocol::GroupLinks{} : *links;
  }

  std::map<Epoch, protocol::View> written_;
  std::map<PeerId, Epoch> last_;
  std::map<PeerId, bool> over_;
};

}  // namespace

std::unique_ptr<ByteCheck> check_byte_views(ByteWorld& world) {
  return std::make_unique<CheckViews>(world);
}

}  // namespace pyccl::sim
