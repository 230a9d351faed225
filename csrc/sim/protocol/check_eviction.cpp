// S5 and R9: a peer is told that it is evicted only when a durable view without it stands, and from
// then on it commits nothing. One that nobody evicted is not told so.
#include <set>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

class CheckEviction final : public Check {
 public:
  using Check::Check;

  void coordinator_sends(const CoordinatorNode& node, PeerId to,
                         const protocol::Message& message) override {
    if (!std::holds_alternative<protocol::Evicted>(message)) return;
    if (node.file()->view.find(to) != nullptr) {
      world_.fail("R9", "evicted is said to " + to_string(to) + ", who is a member");
    }
  }

  void ended(const PeerNode& peer, const Status& status) override {
    out_.insert(peer.id());
    const auto& file = world_.coordinator.file();
    const bool member = file && file->view.find(peer.id()) != nullptr;
    if (status.code() == Code::evicted && member) {
      world_.fail("S5", peer.name() + " ends as evicted and is a member: " + status.reason());
    }
    if (status.code() == Code::coordinator_unavailable && !world_.coordinator.file_replaced() &&
        status.reason().find("state file") != std::string::npos) {
      world_.fail("S5", "the coordinator has lost the run");
    }
  }

  void left(const PeerNode& peer) override { out_.insert(peer.id()); }

  void committed(const PeerNode& peer, OpId op, bool) override {
    if (out_.contains(peer.id())) {
      world_.fail("S5", peer.name() + " commits " + to_string(op) + " after its end");
    }
  }

 private:
  std::set<PeerId> out_;
};

}  // namespace

std::unique_ptr<Check> check_eviction(World& world) {
  return std::make_unique<CheckEviction>(world);
}

}  // namespace pyccl::sim
