// S2 agreement, S3 validity, S4 virtual synchrony, S10: an operation that anybody commits has the
// contributions of the whole group of one view, each once, and nobody commits anything else under
// its name. Among survivors it ends in one way, with one hint (rule R11) and one reason.
//
// A peer is a survivor of what it did in a view once it installs the next, or lives at the end.
#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

// Numbers begin anew when a group has died out, so an operation is named with the view in which
// its group began; one of a subgroup with the first view of those that have all its members. (It
// may begin anew with a peer that did not hear that it was admitted and comes again.)
struct Name {
  Epoch generation;
  OpKey op;
  auto operator<=>(const Name&) const = default;
};

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

class CheckOutcomes final : public Check {
 public:
  using Check::Check;

  void persisted(const protocol::CoordinatorState& state) override {
    const protocol::View& view = state.view;
    for (const protocol::MemberInfo& member : view.members) {
      const GroupId group = group_id(member.group);
      const auto before = generations_.find({view.parent, group});
      generations_.try_emplace({view.epoch, group},
                               before == generations_.end() ? view.epoch : before->second);
    }
    views_.try_emplace(view.epoch, view);
  }

  void posted(const PeerNode& peer, OpKey op, const protocol::Call& call) override {
    if (call.members.empty()) return;
    Epoch first = peer.member().view().epoch;
    for (auto at = views_.find(first); at != views_.end(); at = views_.find(at->second.parent)) {
      const bool all = std::ranges::all_of(
          call.members, [&](PeerId one) { return at->second.find(one) != nullptr; });
      if (!all) break;
      first = at->first;
    }
    subgroup_generations_[{peer.id(), op}] = first;
  }

  void installed(const PeerNode& peer, const protocol::View&) override { confirm(peer); }

  void committed(const PeerNode& peer, OpId op, bool hint) override {
    check_result(peer, op);
    const Name name{generation(peer, op.key), op.key};
    // Even who will not survive must not hold another result than the others.
    const auto [known, first] = committed_in_.try_emplace(name, op.epoch);
    if (!first && known->second != op.epoch) {
      world_.fail("S2", peer.name() + " commits " + to_string(op) + ", others in view " +
                            to_string(known->second));
    }
    provisional_[peer.id()].emplace_back(name, Ending{true, op.epoch, hint, {}});
  }

  void failed(const PeerNode& peer, OpKey op, const Status& status) override {
    if (status.code() == Code::closed) return;  // it leaves; the others don't
    provisional_[peer.id()].emplace_back(Name{generation(peer, op), op},
                                         Ending{false, {}, false, status});
  }

  void finished() override {
    for (const auto& peer : world_.living()) confirm(*peer);
  }

  void died(const PeerNode& peer) override { provisional_.erase(peer.id()); }

 private:
  Epoch generation(const PeerNode& peer, OpKey op) const {
    if (is_subgroup(op.group)) return subgroup_generations_.at({peer.id(), op});
    const auto found = generations_.find({peer.member().view().epoch, group_id(peer.group())});
    return found == generations_.end() ? Epoch{} : found->second;
  }

  void check_result(const PeerNode& peer, OpId op) {
    const Exchange* exchange = peer.exchange(op.key);
    const auto group = peer.member().participants(op.key);
    const auto bad = [&](const std::string& what) {
      world_.fail("S3", peer.name() + " commits " + to_string(op) + " " + what);
    };
    if (exchange == nullptr || exchange->op != op) return bad("without having run it");
    if (!exchange->whole) return bad("without the whole result");
    if (exchange->members != group && peer.member().view().epoch == op.epoch) {
      return bad("with others than its group");
    }
    for (PeerId other : exchange->members) {
      if (other == peer.id()) continue;
      const auto pieces = exchange->received.find(other);
      if (pieces == exchange->received.end()) return bad("without " + to_string(other));
      for (const auto& [piece, value] : pieces->second) {
        if (value != world_.value_of(other, op, piece)) return bad("with foreign data");
      }
    }
    if (exchange->received.size() > exchange->members.size() - 1) bad("with a stranger's data");
  }

  void confirm(const PeerNode& peer) {
    for (auto& [name, ending] : provisional_[peer.id()]) {
      const auto [known, first] = endings_.try_emplace(name, ending, peer.name());
      if (first || known->second.first == ending) continue;
      const bool hint = known->second.first.committed && ending.committed;
      world_.fail(hint ? "R11" : "S2", to_string(name.op) + " at " + peer.name() + " " +
                                           described(ending) + "; at " + known->second.second +
                                           " " + described(known->second.first));
    }
    provisional_[peer.id()].clear();
  }

  std::map<std::pair<Epoch, GroupId>, Epoch> generations_;
  std::map<Epoch, protocol::View> views_;
  std::map<std::pair<PeerId, OpKey>, Epoch> subgroup_generations_;
  std::map<Name, Epoch> committed_in_;
  std::map<PeerId, std::vector<std::pair<Name, Ending>>> provisional_;
  std::map<Name, std::pair<Ending, std::string>> endings_;
};

}  // namespace

std::unique_ptr<Check> check_outcomes(World& world) {
  return std::make_unique<CheckOutcomes>(world);
}

}  // namespace pyccl::sim
