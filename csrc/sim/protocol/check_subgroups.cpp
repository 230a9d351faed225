// Who takes part: an operation of a subgroup is between its members and nobody else, it ends with
// peer_lost if one of them is lost and never otherwise, and that loss ends the subgroup. Numbers
// count by group and tag without a gap. An operation with a root has it, and of an uneven one all
// amounts are equal. (That it ends in one way everywhere is checked with all the others,
// check_outcomes.cpp.)
#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

using namespace protocol;

class CheckSubgroups final : public Check {
 public:
  using Check::Check;

  void posted(const PeerNode& peer, OpKey op, const Call& call) override {
    if (!call.members.empty()) {
      const auto [known, first] = subgroups_.try_emplace(op.group, call.members);
      if (known->second != call.members) bad(peer, op, "is of two subgroups with one id");
      if (!all_in_view(peer, call.members)) bad(peer, op, "is posted though a member is lost");
    }
    const auto [next, first] = numbers_.try_emplace({peer.id(), numbering(op)}, op.seq);
    // A group's may be left out: a view in which others begin says where all go on. A subgroup is
    // as new to a newcomer as to its other members.
    const std::uint32_t expected = first && is_subgroup(op.group) ? 0 : next->second;
    if (is_subgroup(op.group) ? op.seq != expected : op.seq < expected) {
      bad(peer, op, "has not the next number");
    }
    next->second = op.seq + 1;
    if (is_subgroup(op.group)) open_[peer.id()].insert(op);
    if (call.descriptor.root_peer) roots_[{peer.id(), op}] = call.descriptor.root_peer;
    if (call.descriptor.uneven) {
      Amounts& amounts = amounts_[{peer.id(), op}];
      amounts.ranks = call.members.empty() ? peer.member().participants(op) : call.members;
      amounts.gives = call.gives;
      amounts.takes = call.takes;
    }
  }

  void refused(const PeerNode& peer, const Call& call, const Status& status) override {
    if (!peer.member().admitted()) return;
    const bool lost = status.code() == Code::peer_lost;
    if (lost == all_in_view(peer, call.members)) {
      world_.fail("subgroups", peer.name() + " may not post: " + status.reason());
    }
  }

  void started(const PeerNode& peer, OpId op, std::uint32_t) override {
    const std::vector<PeerId>& ranks = peer.member().participants(op.key);
    if (!all_in_view(peer, ranks)) bad(peer, op.key, "starts though a member is lost");
    if (is_subgroup(op.key.group) && ranks != subgroups_.at(op.key.group)) {
      bad(peer, op.key, "starts with others than its members");
    }
    const auto root = roots_.find({peer.id(), op.key});
    if (root != roots_.end() && std::ranges::find(ranks, root->second) == ranks.end()) {
      bad(peer, op.key, "starts without its root");
    }
  }

  void committed(const PeerNode& peer, OpId op, bool hint) override {
    const Exchange* exchange = peer.exchange(op.key);
    if (exchange != nullptr && amounts_.contains({peer.id(), op.key})) {
      check_amounts(peer, op.key, exchange->members);
    }
    if (!is_subgroup(op.key.group)) return;
    open_[peer.id()].erase(op.key);
    if (hint) bad(peer, op.key, "says of joiners what not all members hear");
    if (exchange != nullptr && exchange->members != subgroups_.at(op.key.group)) {
      bad(peer, op.key, "is committed by others than its members");
    }
  }

  void failed(const PeerNode& peer, OpKey op, const Status& status) override {
    if (!is_subgroup(op.group)) return;
    open_[peer.id()].erase(op);
    if (status.code() == Code::closed) return;
    const bool lost = status.code() == Code::peer_lost;
    if (lost == all_in_view(peer, subgroups_.at(op.group))) {
      bad(peer, op, "fails with the wrong error: " + status.reason());
    }
  }

  void withdrawn(const PeerNode& peer, OpKey op) override {
    open_[peer.id()].erase(op);
    numbers_[{peer.id(), numbering(op)}] = op.seq;
  }

  void installed(const PeerNode& peer, const View&) override {
    for (const OpKey& op : open_[peer.id()]) {
      if (!all_in_view(peer, subgroups_.at(op.group))) bad(peer, op, "outlives its subgroup");
    }
    // One that did not hear of its admission may come back, and all begin anew.
    for (auto at = numbers_.lower_bound({peer.id(), {}});
         at != numbers_.end() && at->first.first == peer.id();) {
      const GroupId id = at->first.second.first;
      const bool over = is_subgroup(id) && !all_in_view(peer, subgroups_.at(id));
      at = over ? numbers_.erase(at) : std::next(at);
    }
  }

  void time_passed() override {
    for (const auto& peer : world_.living()) {
      if (!peer->member().admitted()) continue;
      const auto holding = std::ranges::count_if(subgroups_, [&](const auto& subgroup) {
        return std::ranges::find(subgroup.second, peer->id()) != subgroup.second.end() &&
               all_in_view(*peer, subgroup.second);
      });
      if (peer->member().load().subgroups > static_cast<std::size_t>(holding)) {
        world_.fail("S11", peer->name() + " remembers subgroups that have ended");
      }
    }
  }

 private:
  struct Amounts {
    std::vector<PeerId> ranks;
    std::vector<std::uint64_t> gives;
    std::vector<std::uint64_t> takes;
  };

  void bad(const PeerNode& peer, OpKey op, const std::string& what) {
    world_.fail("subgroups", to_string(op) + " at " + peer.name() + " " + what);
  }

  static bool all_in_view(const PeerNode& peer, const std::vector<PeerId>& members) {
    const View& view = peer.member().view();
    return std::ranges::all_of(members, [&](PeerId one) { return view.find(one) != nullptr; });
  }

  // With all others. What those say to each other is their business: if it is unequal and both die,
  // this one's result is whole all the same.
  void check_amounts(const PeerNode& peer, OpKey op, const std::vector<PeerId>& members) {
    const auto place = [&](PeerId one) {
      return static_cast<std::size_t>(std::ranges::find(members, one) - members.begin());
    };
    const Amounts& own = amounts_.at({peer.id(), op});
    for (PeerId other : members) {
      const Amounts& its = amounts_[{other, op}];
      if (own.ranks != members || its.ranks != members) {
        return bad(peer, op, "has amounts for others than its members");
      }
      if (own.gives[place(other)] != its.takes[place(peer.id())] ||
          own.takes[place(other)] != its.gives[place(peer.id())]) {
        return bad(peer, op, "is committed with unequal amounts");
      }
    }
  }

  Subgroups subgroups_;  // all that were ever used
  std::map<std::pair<PeerId, Numbering>, std::uint32_t> numbers_;
  std::map<PeerId, std::set<OpKey>> open_;  // of subgroups
  std::map<std::pair<PeerId, OpKey>, PeerId> roots_;
  std::map<std::pair<PeerId, OpKey>, Amounts> amounts_;
};

}  // namespace

std::unique_ptr<Check> check_subgroups(World& world) {
  return std::make_unique<CheckSubgroups>(world);
}

}  // namespace pyccl::sim
