// Coordinator: from one view to the next.
//
//   recovering -> stable        all members of the last view are here or given up
//   stable     -> changing      somebody is lost, somebody asks for a decision, a report shows that
//                               a former coordinator froze them, or all called update()
//   changing   -> stable        reports from all that are kept, and of joiners whom they reach
#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "protocol/coordinator.hpp"
#include "protocol/decide.hpp"

namespace pyccl::protocol {

void Coordinator::handle(Time, PeerId from, const Report& report) {
  if (!is_present(report.epoch)) return;  // only of this view (rule R8)
  reports_.answer(from, report);
}

void Coordinator::handle(Time, PeerId from, const Prepared& prepared) {
  if (candidate_ && prepared.epoch == candidate_->epoch) {
    prepared_.answer(from, prepared.unreachable);
  }
}

void Coordinator::handle(Time, PeerId from, const Update& update) {
  if (is_present(update.epoch) || PYCCL_MUTANT("update-counts-across-views")) {
    updates_.answer(from, true);
  }
}

void Coordinator::handle(Time, PeerId from, const UpdateWithdrawn& withdrawn) {
  if (is_present(withdrawn.epoch)) updates_.withdraw(from);
}

void Coordinator::handle(Time, PeerId from, const Refuse& refuse) {
  if (!is_present(refuse.epoch) || !is_kept(from)) return;
  if (wish_.empty()) wish_ = name_of(from) + " gave up an operation: " + refuse.status.reason();
}

void Coordinator::handle(Time, PeerId from, const Measured& measured) {
  topology_.learn(from, measured.links);
}

// Whatever is due now, one step at a time.
void Coordinator::advance(Time now) {
  for (bool again = true; again;) {
    again = false;
    if (phase_ == Phase::recovering) finish_recovery(now);
    if (phase_ == Phase::stable) {
      if (state_.view.members.empty()) {
        if (!joiners_.empty()) admit_first();
      } else if (!lost_.empty() || !wish_.empty() || !reports_.answers().empty()) {
        begin_change();
      } else if (updates_.complete()) {
        propose(now);
      }
    }
    if (phase_ == Phase::changing) {
      if (kept().empty()) {
        install_ended_run();
        again = true;
      } else if (ready()) {
        install();
        again = true;
      }
    }
  }
}

void Coordinator::finish_recovery(Time now) {
  const bool limit = now >= recovery_deadline_;
  for (PeerId peer : kept()) {
    if (registered_.contains(peer)) continue;
    if (!limit) return;
    PYCCL_MARK("member absent after the coordinator's restart");
    lose(peer, "did not come back to the restarted coordinator");
  }
  recovery_deadline_ = never;
  phase_ = Phase::stable;
  note("recovered view " + to_string(state_.view.epoch));
}

void Coordinator::begin_change() {
  phase_ = Phase::changing;
  send_to_members(Freeze{state_.view.epoch});
}

// All members wait in update(): the next view may let joiners in.
void Coordinator::propose(Time now) {
  boundary_ = true;
  if (joiners_.empty()) return begin_change();
  phase_ = Phase::changing;
  candidate_.emplace();
  candidate_->run = state_.run;
  candidate_->epoch = next_epoch();
  candidate_->parent = state_.view.epoch;
  candidate_->members = state_.view.members;
  candidate_->reason = "to be prepared";
  for (const MemberInfo& joiner : joiners_) {
    if (candidate_->members.size() < members_max) candidate_->members.push_back(joiner);
  }
  std::set<PeerId> voters;
  for (const MemberInfo& member : candidate_->members) voters.insert(member.peer);
  prepared_.begin(voters);
  prepare_deadline_ = now + options_.timing.prepare_limit;
  for (PeerId peer : voters) send(peer, Prepare{*candidate_});
}

void Coordinator::abandon_proposal() {
  boundary_ = false;
  candidate_.reset();
  prepare_deadline_ = never;
  prepare_late_ = false;
}

bool Coordinator::ready() const {
  if (!reports_.complete()) return false;
  return !candidate_ || prepared_.complete() || prepare_late_;
}

// Joiners of the candidate that can't come, and why. Of a pair that can't connect the joiner goes;
// of two joiners the later one. A silent member does not count against joiners that reach it.
std::map<PeerId, std::string> Coordinator::unreachable_joiners() const {
  std::map<PeerId, std::string> out;
  const auto& answers = prepared_.answers();
  const auto apart = [&](PeerId left, PeerId right) {
    const auto says = [&](PeerId who, PeerId whom) {
      const auto answer = answers.find(who);
      return answer != answers.end() &&
             std::ranges::find(answer->second, whom) != answer->second.end();
    };
    return says(left, right) || says(right, left);
  };
  for (const MemberInfo& joiner : candidate_->members) {
    if (state_.view.find(joiner.peer) != nullptr) continue;
    if (!answers.contains(joiner.peer)) {
      out[joiner.peer] = "this peer did not get ready for the next view in time";
      continue;
    }
    for (const MemberInfo& earlier : candidate_->members) {
      if (earlier.peer == joiner.peer) break;
      if (out.contains(earlier.peer) || !apart(earlier.peer, joiner.peer)) continue;
      out[joiner.peer] = "no connection to " + name_of(earlier.peer);
      break;
    }
  }
  return out;
}

void Coordinator::leave_out_unreachable() {
  for (const auto& [peer, why] : unreachable_joiners()) {
    PYCCL_MARK("joiner left out of a prepared view");
    refuse_joiner(peer, {Code::not_admitted, why});
  }
}

void Coordinator::install() {
  Verdict verdict = decide(state_.view, reports_.answers(), lost_, options_.decisions_bytes);
  if (verdict.too_much) {
    banished_.insert(*verdict.too_much);
    lose(*verdict.too_much, "had more operations open than one view can decide");
    return;
  }
  if (PYCCL_MUTANT("hint-of-decision")) {
    for (Decision& decision : verdict.decisions) decision.hint = !joiners_.empty();
  }
  if (verdict.restarts && boundary_ && !PYCCL_MUTANT("joiner-inside-operation")) {
    // Newcomers enter only between operations: they wait for the next boundary.
    PYCCL_MARK("boundary put off: an operation began meanwhile");
    abandon_proposal();
  }
  if (candidate_) leave_out_unreachable();
  View next;
  next.run = state_.run;
  next.epoch = candidate_ ? candidate_->epoch : next_epoch();
  next.parent = state_.view.epoch;
  next.kind = boundary_ ? ViewKind::boundary : lost_.empty() ? ViewKind::decision : ViewKind::loss;
  next.decisions = std::move(verdict.decisions);
  if (boundary_) next.next_sequences = std::move(verdict.next_sequences);
  for (const MemberInfo& member : candidate_ ? candidate_->members : state_.view.members) {
    if (!lost_.contains(member.peer)) next.members.push_back(member);
  }
  next.subgroups = next.subgroups_of(verdict.subgroups);
  next.links = topology_.links_of(next, state_.view);
  next.reason = reason_for(next.kind, next.members.size() - kept().size());
  publish(std::move(next));
}

std::string Coordinator::reason_for(ViewKind kind, std::size_t admitted) const {
  if (kind == ViewKind::decision) return wish_.empty() ? "frozen before" : wish_;
  if (kind == ViewKind::boundary) {
    return "all members called update(); joined: " + std::to_string(admitted);
  }
  std::string text;
  for (const auto& [peer, why] : lost_)
    text += (text.empty() ? "" : "; ") + name_of(peer) + " " + why;
  return text;
}

void Coordinator::install_ended_run() {
  PYCCL_MARK("run ended: no members left");
  View next;
  next.run = state_.run;
  next.epoch = next_epoch();
  next.parent = state_.view.epoch;
  next.kind = ViewKind::loss;
  next.reason = reason_for(next.kind, 0);
  publish(std::move(next));
}

void Coordinator::admit_first() {
  View next;
  next.run = state_.run;
  next.epoch = next_epoch();
  next.parent = state_.view.epoch;
  next.members = {joiners_.front()};
  next.reason = "first peer of the run";
  publish(std::move(next));
}

// The view is durable before it is first sent, so a restarted coordinator never makes another in
// its place. Only now are those that it leaves out told so (rule R9).
void Coordinator::publish(View next) {
  PYCCL_ASSERT(next.epoch > state_.view.epoch);
  const auto gone = std::exchange(lost_, {});
  Persist durable{{state_.run, state_.incarnation, next}};
  if (PYCCL_MUTANT("stale-decision-after-restart")) {
    durable.state.view.decisions = state_.view.decisions;
  }
  state_.view = std::move(next);
  outbox.push_back(std::move(durable));
  note("view " + to_string(state_.view.epoch) + ": " + state_.view.reason);
  std::erase_if(joiners_,
                [&](const MemberInfo& one) { return state_.view.find(one.peer) != nullptr; });
  phase_ = Phase::stable;
  abandon_proposal();
  wish_.clear();
  reports_.begin(kept());
  if (PYCCL_MUTANT("update-counts-across-views")) {
    for (PeerId peer : kept()) updates_.expect(peer);
  } else {
    updates_.begin(kept());
  }
  for (const MemberInfo& member : state_.view.members) send(member.peer, view_for(member.peer));
  say_farewell(gone);
  topology_.forget([this](PeerId peer) { return !contacts_.contains(peer); });
  if (!joiners_.empty()) tell_pending();
}

void Coordinator::say_farewell(const std::map<PeerId, std::string>& gone) {
  for (const auto& [peer, why] : gone) {
    const Status status(Code::evicted, "the others went on without this peer: it " + why);
    send(peer, Evicted{state_.view.epoch, status});
    if (const auto contact = contacts_.find(peer);
        contact != contacts_.end() && contact->second.detector.is_connected()) {
      hang_up(peer, status.reason());
    }
    contacts_.erase(peer);
    banished_.erase(peer);
  }
  std::erase_if(complaints_, [&](const auto& complaint) {
    return !is_kept(complaint.first.first) || !is_kept(complaint.first.second);
  });
}

// Operations of other groups are none of a peer's business, and a message has its limit.
View Coordinator::view_for(PeerId peer) const {
  View view = state_.view;
  const MemberInfo* member = view.find(peer);
  const GroupId group = group_id(member->group);
  std::erase_if(view.subgroups, [&](const Subgroup& one) {
    return std::ranges::find(one.places, member - view.members.data()) == one.places.end();
  });
  std::set<GroupId> own{group};
  for (const Subgroup& subgroup : view.subgroups) own.insert(subgroup.id);
  if (PYCCL_MUTANT("decisions-of-subgroups-lost")) own = {group};
  std::erase_if(view.decisions, [&](const Decision& one) { return !own.contains(one.op.group); });
  std::erase_if(view.next_sequences, [&](const NextSequence& one) { return one.group != group; });
  std::erase_if(view.links, [&](const GroupLinks& one) { return one.group != group; });
  return view;
}

Epoch Coordinator::next_epoch() {
  ++last_epoch_.counter;
  return last_epoch_;
}

}  // namespace pyccl::protocol
