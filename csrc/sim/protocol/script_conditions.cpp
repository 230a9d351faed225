// The conditions of scenarios:
//
// OP is an operation, TAG#SEQ; TAG#SEQ/Q,R of the subgroup of Q and R.
//
//   [not] committed OP at P...          also: withdrawn, timeout, mismatch, peer_lost, cancelled,
//                                       closed (as an operation failed), open (it has not ended)
//   hint OP at P...                     the caller saw that joiners wait
//   whole OP at P...                    all data is there and nothing is owed
//   says OP WORD... at P...             the error's text has these words somewhere
//   contributors Q... of OP at P...     the committed result is of these
//   members Q... at P...                its view has these members, in this order
//   kind boundary|loss|decision at P... of its view
//   frozen at P... | pending at P... (joiners wait, as far as it knows) | waiting at P... (joiner)
//   updated RESULT at P...              its last update() ended so; "none": none has ended
//   ended CODE at P... | left at P... | dead at P...
//   joiners N                           so many wait at the coordinator
#include <algorithm>
#include <cstdlib>
#include <set>

#include "sim/protocol/script.hpp"

namespace pyccl::sim {
namespace {

const std::set<std::string> operation_ends = {"committed", "withdrawn", "timeout", "mismatch",
                                              "peer_lost", "cancelled", "closed",  "open",
                                              "hint",      "whole",     "says",    "contributors"};

}  // namespace

bool Script::holds(const Words& given) {
  Words words = given;
  const bool wanted = words[0] != "not";
  if (!wanted) words.erase(words.begin());
  if (words.empty()) {
    problem_ = "a condition is missing";
    return false;
  }
  if (words[0] == "joiners") {
    const protocol::Coordinator* machine = world_.coordinator.machine();
    const auto count = static_cast<std::size_t>(std::atoi(words.back().c_str()));
    return (machine != nullptr && machine->joiner_count() == count) == wanted;
  }
  const auto at = std::ranges::find(words, "at");
  if (at == words.end() || std::next(at) == words.end()) {
    problem_ = "a condition ends with: at P...";
    return false;
  }
  const Words condition(words.begin(), at);
  return std::all_of(std::next(at), words.end(),
                     [&](const std::string& name) { return holds_at(condition, name) == wanted; });
}

bool Script::holds_at(const Words& condition, const std::string& name) {
  const auto found = named_.find(name);
  if (found == named_.end()) {
    problem_ = "no peer " + name + " has been started";
    return false;
  }
  const auto& caller = static_cast<const ScriptCaller&>(*found->second->caller);
  if (operation_ends.contains(condition[0])) {
    return operation_holds(condition, caller, found->second.get());
  }
  return peer_holds(condition, caller, found->second.get());
}

bool Script::operation_holds(const Words& condition, const ScriptCaller& caller,
                             const PeerNode* peer) {
  const bool last = condition[0] == "contributors";
  const auto op = operation_named(last ? condition.back() : condition.at(1), *peer);
  if (!op) {
    problem_ = "an operation is TAG#SEQ";
    return false;
  }
  if (condition[0] == "whole") {
    const Exchange* exchange = peer->exchange(*op);
    return exchange != nullptr && exchange->whole;
  }
  const auto end = caller.ends.find(*op);
  if (condition[0] == "open") return end == caller.ends.end();
  if (end == caller.ends.end()) return false;
  if (condition[0] == "hint") return end->second.how == "committed" && end->second.hint;
  if (condition[0] == "says") {
    return std::all_of(condition.begin() + 2, condition.end(), [&](const std::string& word) {
      return end->second.reason.find(word) != std::string::npos;
    });
  }
  if (last) {
    const Words names(condition.begin() + 1, condition.end() - 2);
    return end->second.how == "committed" && names == end->second.contributors;
  }
  return end->second.how == condition[0];
}

bool Script::peer_holds(const Words& condition, const ScriptCaller& caller, const PeerNode* peer) {
  const std::string& what = condition[0];
  const protocol::Member& member = peer->member();
  const std::string wanted = condition.size() > 1 ? condition[1] : "";
  if (what == "dead") return !peer->alive();
  if (what == "left") return peer->departure == "left";
  if (what == "ended") return peer->departure == wanted;
  if (what == "updated") return wanted == (caller.update.empty() ? "none" : caller.update);
  if (what == "frozen") return peer->alive() && member.frozen();
  if (what == "pending") return member.joiners_pending();
  if (what == "waiting") return peer->alive() && !member.admitted();
  if (what == "kind") {
    static const char* const kinds[] = {"boundary", "loss", "decision"};
    return member.admitted() && wanted == kinds[static_cast<std::size_t>(member.view().kind)];
  }
  if (what == "members") {
    return peer->alive() && Words(condition.begin() + 1, condition.end()) == members_seen_by(*peer);
  }
  problem_ = "unknown condition " + what;
  return false;
}

Words Script::members_seen_by(const PeerNode& peer) const {
  Words names;
  if (!peer.member().admitted()) return names;
  for (const protocol::MemberInfo& member : peer.member().view().members) {
    names.push_back(world_.short_name(member.peer));
  }
  return names;
}

}  // namespace pyccl::sim
