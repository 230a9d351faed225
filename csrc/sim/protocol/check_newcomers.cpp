// S6: newcomers enter only between operations. Whoever takes part when a peer tries an operation
// again was there when that peer began it.
#include <algorithm>
#include <map>
#include <utility>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

class CheckNewcomers final : public Check {
 public:
  using Check::Check;

  void started(const PeerNode& peer, OpId op, std::uint32_t) override {
    const auto group = peer.member().participants(op.key);
    const auto [first, fresh] = first_.try_emplace({peer.id(), op.key}, op.epoch, group);
    if (fresh) return;
    const auto& [epoch, members] = first->second;
    for (PeerId member : group) {
      if (std::ranges::find(members, member) == members.end()) {
        return world_.fail("S6", to_string(op) + " takes in " + to_string(member) +
                                     ", who was not there in view " + to_string(epoch));
      }
    }
  }

  // Its number is free again.
  void withdrawn(const PeerNode& peer, OpKey op) override { first_.erase({peer.id(), op}); }

 private:
  std::map<std::pair<PeerId, OpKey>, std::pair<Epoch, std::vector<PeerId>>> first_;
};

}  // namespace

std::unique_ptr<Check> check_newcomers(World& world) {
  return std::make_unique<CheckNewcomers>(world);
}

}  // namespace pyccl::sim
