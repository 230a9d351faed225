// Coordinator: who comes. Joiners wait and disturb nobody; members that come back are told what
// they missed.
#include <algorithm>
#include <limits>
#include <utility>

#include "base/mark.hpp"
#include "protocol/coordinator.hpp"

namespace pyccl::protocol {

const MemberInfo* Coordinator::find_joiner(PeerId peer) const {
  for (const MemberInfo& joiner : joiners_) {
    if (joiner.peer == peer) return &joiner;
  }
  return nullptr;
}

// Why a peer can't join, as a sentence for its user.
Status Coordinator::may_join(PeerId from, const Hello& hello) const {
  const auto refuse = [](std::string why) { return Status(Code::not_admitted, std::move(why)); };
  const MemberInfo& peer = hello.member;
  if (hello.version != version) {
    return {Code::protocol_violation, "this peer speaks protocol version " +
                                          std::to_string(hello.version) + ", the coordinator " +
                                          std::to_string(version)};
  }
  if (hello.run && hello.run != state_.run) return refuse("the coordinator has another run");
  if (!peer.peer || peer.peer != from) return refuse("the peer's id is not its own");
  if (peer.group.size() > name_bytes_max) {
    return refuse("the group's name is longer than " + std::to_string(name_bytes_max) + " bytes");
  }
  const auto same_hash = [&](const MemberInfo& other) {
    return other.group != peer.group && group_id(other.group) == group_id(peer.group);
  };
  // Its addresses don't count: the host completes them from where the connection comes, and a peer
  // may come back by another route.
  const auto duplicate = [&](const MemberInfo& other) {
    return other.peer == peer.peer && (other.group != peer.group || other.role != peer.role);
  };
  for (const auto* peers : {&state_.view.members, &joiners_}) {
    for (const MemberInfo& other : *peers) {
      if (same_hash(other)) {
        return refuse("the group's name can't be told from \"" + other.group + "\": rename one");
      }
      if (duplicate(other)) return refuse("another peer has the same id");
    }
  }
  if (is_joiner(from) || state_.view.find(from) != nullptr) return {};
  if (joiners_.size() >= joiners_max || state_.view.members.size() >= members_max) {
    return refuse("too many peers: at most " + std::to_string(members_max) +
                  " members, and as many that wait");
  }
  return {};
}

Welcome Coordinator::welcome() const {
  const auto limit =
      std::chrono::duration_cast<std::chrono::milliseconds>(options_.timing.heartbeat_limit);
  constexpr std::int64_t most = std::numeric_limits<std::uint32_t>::max();
  return {state_.run, state_.incarnation,
          static_cast<std::uint32_t>(std::min<std::int64_t>(limit.count(), most))};
}

void Coordinator::handle(Time now, PeerId from, const Hello& hello) {
  if (Status status = may_join(from, hello); !status.ok()) {
    PYCCL_MARK("hello refused");
    // The connection that said so is closed; who had the id before will dial again.
    outbox.push_back(SendTo{from, NotAdmitted{status}});
    hang_up(from, status.reason());
    if (const auto contact = contacts_.find(from); contact != contacts_.end()) {
      contact->second.detector.disconnected(now);
    }
    return;
  }
  if (state_.view.find(from) != nullptr) {
    PYCCL_MARK("admitted without having heard of it");
    return welcome_member(now, from, {});
  }
  contacts_.insert_or_assign(from, Contact(now));
  note_joiner(hello.member);
  send(from, welcome());
  if (candidate_ && candidate_->find(from) != nullptr) {
    PYCCL_MARK("joiner came back while its view is prepared");
    send(from, Prepare{*candidate_});
  }
  note("peer " + to_string(from) + " waits to join");
  tell_pending();
}

// One that comes again is where its last addresses say, also in the view that is prepared with it.
void Coordinator::note_joiner(const MemberInfo& joiner) {
  const auto known = std::ranges::find(joiners_, joiner.peer, &MemberInfo::peer);
  if (known == joiners_.end()) {
    joiners_.push_back(joiner);
    return;
  }
  if (*known == joiner) return;
  PYCCL_MARK("joiner came back with other addresses");
  *known = joiner;
  if (!candidate_) return;
  for (MemberInfo& member : candidate_->members) {
    if (member.peer == joiner.peer) member = joiner;
  }
}

void Coordinator::handle(Time now, PeerId from, const Register& peer) {
  const View& known = peer.view;
  Status out;
  if (peer.version != version) {
    out = {Code::evicted, "this peer speaks another version of the protocol"};
  } else if (known.run != state_.run || known.epoch > state_.view.epoch) {
    PYCCL_MARK("member of a run that the coordinator does not know");
    out = {Code::coordinator_unavailable,
           "the coordinator does not know this run: it started without the run's state file"};
  } else if (state_.view.find(from) == nullptr) {
    PYCCL_MARK("evicted peer came back");
    out = {Code::evicted,
           "the others went on without this peer; their last view: " + state_.view.reason};
  }
  if (!out.ok()) {
    outbox.push_back(SendTo{from, Evicted{state_.view.epoch, out}});
    return hang_up(from, out.reason());
  }
  welcome_member(now, from, known.epoch);
}

// All that may have been lost with the former connection is said again.
void Coordinator::welcome_member(Time now, PeerId from, Epoch its_epoch) {
  contacts_.insert_or_assign(from, Contact(now));
  registered_.insert(from);
  updates_.withdraw(from);  // it says so again if it still wants to
  std::erase_if(complaints_, [&](const auto& complaint) { return complaint.first.first == from; });
  send(from, welcome());
  if (!is_present(its_epoch)) {
    PYCCL_MARK("last view handed to a member that lacks it");
    View view = view_for(from);
    if (PYCCL_MUTANT("links-not-handed-on")) view.links.clear();
    send(from, std::move(view));
  }
  if (lost_.contains(from)) {
    if (banished_.contains(from)) return;
    if (PYCCL_MUTANT("give-up-final")) {
      send(from, Evicted{state_.view.epoch, {Code::evicted, "given up"}});
      return hang_up(from, "given up");
    }
    take_back(from);
  }
  if (phase_ == Phase::changing) {
    send(from, Freeze{state_.view.epoch});
    if (candidate_) send(from, Prepare{*candidate_});
  }
  if (!joiners_.empty()) send(from, Pending{static_cast<std::uint32_t>(joiners_.size())});
}

void Coordinator::refuse_joiner(PeerId peer, Status why) {
  note("peer " + to_string(peer) + " is not admitted: " + why.reason());
  send(peer, NotAdmitted{why});
  hang_up(peer, why.reason());
  drop_joiner(peer);
}

void Coordinator::drop_joiner(PeerId peer) {
  contacts_.erase(peer);
  std::erase_if(joiners_, [&](const MemberInfo& joiner) { return joiner.peer == peer; });
  if (candidate_ && candidate_->find(peer) != nullptr) {
    std::erase_if(candidate_->members, [&](const MemberInfo& one) { return one.peer == peer; });
    prepared_.excuse(peer);
  }
  tell_pending();
}

void Coordinator::tell_pending() {
  send_to_members(Pending{static_cast<std::uint32_t>(joiners_.size())});
}

}  // namespace pyccl::protocol
