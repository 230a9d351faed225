// C1, S4: among survivors an operation ends in one way, with one hint (rule R11) and one reason.
//
// A peer is a survivor of what it did in a view once it installs the next, or lives at the end.
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "sim/byte/world.hpp"

namespace pyccl::sim {
namespace {

struct Ending {
  bool committed = false;
  Epoch epoch;  // whose members contributed
  bool hint = false;
  Status status;
  bool operator==(const Ending&) const = default;
};

std::string described(const Ending& ending) {
  if (!ending.committed) return "failed: " + ending.status.reason();
  return "committed in view " + to_string(ending.epoch) + (ending.hint ? ", joiners wait" : "");
}

class CheckOutcomes final : public ByteCheck {
 public:
  using ByteCheck::ByteCheck;

  void installed(const BytePeer& peer, const protocol::View&) override { confirm(peer); }

  void finished(const BytePeer& peer, const Posting& posting, const engine::Finished& result,
                bool) override {
    if (!posting.key || over_[peer.id()]) return;
    const Status& status = result.status;
    // Its caller had given it up; what the others make of it is theirs.
    if (posting.cancelled && status.code() == Code::cancelled) return;
    const OperationName name = world_.history.name(peer.engine().view().epoch, *posting.key);
    const Epoch epoch = status.ok() ? result.info.epoch : Epoch{};
    if (status.ok()) {
      // Even who will not survive must not hold another result than the others.
      const auto [known, first] = committed_in_.try_emplace(name, epoch);
      if (!first && known->second != epoch) {
        world_.fail("S2", peer.name() + " commits " + to_string(OpId{epoch, name.key}) +
                              ", others in view " + to_string(known->second));
      }
    }
    provisional_[peer.id()].emplace_back(
        name, Ending{status.ok(), epoch, status.ok() && result.info.peers_pending, status});
  }

  // The calls that an end takes along have no outcome that others share.
  void ended(const BytePeer& peer, const Status&) override {
    over_[peer.id()] = true;
    provisional_.erase(peer.id());
  }
  void died(const BytePeer& peer) override { provisional_.erase(peer.id()); }

  void run_over() override {
    for (const auto& peer : world_.living()) confirm(*peer);
  }

 private:
  void confirm(const BytePeer& peer) {
    for (auto& [name, ending] : provisional_[peer.id()]) {
      const auto [known, first] = endings_.try_emplace(name, ending, peer.name());
      if (first || known->second.first == ending) continue;
      const bool hint = known->second.first.committed && ending.committed;
      world_.fail(hint ? "R11" : "C1", to_string(name.key) + " at " + peer.name() + " " +
                                           described(ending) + "; at " + known->second.second +
                                           " " + described(known->second.first));
    }
    provisional_[peer.id()].clear();
  }

  std::map<OperationName, Epoch> committed_in_;
  std::map<PeerId, std::vector<std::pair<OperationName, Ending>>> provisional_;
  std::map<OperationName, std::pair<Ending, std::string>> endings_;
  std::map<PeerId, bool> over_;
};

}  // namespace

std::unique_ptr<ByteCheck> check_byte_outcomes(ByteWorld& world) {
  return std::make_unique<CheckOutcomes>(world);
}

}  // namespace pyccl::sim
