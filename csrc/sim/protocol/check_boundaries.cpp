// A boundary is due exactly when operations of the whole group have been called since the last one
// and stood: a member that took another view of it would wait where the others go on.
#include <map>
#include <utility>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

using namespace protocol;

class CheckBoundaries final : public Check {
 public:
  using Check::Check;

  void posted(const PeerNode& peer, OpKey op, const Call&) override {
    if (!is_subgroup(op.group)) called_[peer.id()][op] = true;
  }
  void committed(const PeerNode& peer, OpId op, bool) override { over(peer, op.key); }
  void failed(const PeerNode& peer, OpKey op, const Status&) override { over(peer, op); }
  void withdrawn(const PeerNode& peer, OpKey op) override { called_[peer.id()].erase(op); }
  void died(const PeerNode& peer) override { called_.erase(peer.id()); }

  void installed(const PeerNode& peer, const View& view) override {
    told_[peer.id()] = view.epoch;
    if (view.kind != ViewKind::boundary) return;
    std::erase_if(called_[peer.id()], [](const auto& call) { return !call.second; });
  }

  void settled(const PeerNode& peer) override {
    if (!peer.member().admitted()) return;
    // A caller who is told of an end may call again before this check is told of the view that it
    // came with.
    if (peer.member().view().epoch != told_[peer.id()]) return;
    const bool due = !called_[peer.id()].empty();
    if (peer.member().boundary_due() == due) return;
    world_.fail("boundaries", peer.name() + (due ? " has a boundary due and does not know it"
                                                 : " takes a boundary for due"));
  }

 private:
  void over(const PeerNode& peer, OpKey op) {
    if (!is_subgroup(op.group)) called_[peer.id()][op] = false;
  }

  std::map<PeerId, Epoch> told_;
  std::map<PeerId, std::map<OpKey, bool>> called_;  // since the last boundary; true: still open
};

}  // namespace

std::unique_ptr<Check> check_boundaries(World& world) {
  return std::make_unique<CheckBoundaries>(world);
}

}  // namespace pyccl::sim
