// Member: freezing, preparing and installing views.
#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "protocol/member.hpp"

namespace pyccl::protocol {

bool Member::newer(Epoch left, Epoch right) const {
  if (PYCCL_MUTANT("epoch-counter-only")) return left.counter > right.counter;
  return left > right;
}

bool Member::same(Epoch left, Epoch right) const {
  if (PYCCL_MUTANT("epoch-counter-only")) return left.counter == right.counter;
  return left == right;
}

void Member::handle(Time now, const Welcome& welcome) {
  if (welcome.incarnation < incarnation_) {
    PYCCL_MARK("older coordinator refused");
    return redial(now, "a coordinator older than the one that was known answered");
  }
  incarnation_ = welcome.incarnation;
  if (PYCCL_MUTANT("own-heartbeat-limit")) return;
  // Heartbeats have to satisfy the stricter side, silence to be borne as the more patient one does.
  const Duration theirs = std::chrono::milliseconds(std::max(welcome.heartbeat_limit, 50u));
  silence_limit_ = std::max(options_.timing.heartbeat_limit, theirs);
  heartbeat_interval_ = std::min(options_.timing.heartbeat_interval(), theirs / 5);
  heartbeat_due_ = std::min(heartbeat_due_, now + heartbeat_interval_);
}

void Member::handle(Time, const NotAdmitted& refused) {
  if (state_ != State::joiner) return;
  end(Status(Code::not_admitted, refused.status.reason(), refused.status.peer()));
}

// Evicted is said only when a view without this peer stands (rule R9), so nothing can save it.
void Member::handle(Time, const Evicted& evicted) {
  if (state_ == State::joiner) return;
  if (state_ == State::leaving) return finish_leave();
  end(evicted.status);
}

void Member::handle(Time, const Pending& pending) { pending_ = pending.count; }

void Member::handle(Time, const Awaited& awaited) {
  if (update_ && same(awaited.epoch, view_.epoch)) update_->missing = awaited.missing;
}

void Member::handle(Time, const Freeze& freeze_order) {
  if (state_ == State::member && same(freeze_order.epoch, view_.epoch)) freeze();
}

// From here until the next view this member sends no Done, commits nothing, and changes no report
// (rule R1). Asked twice, it says the same again.
void Member::freeze() {
  if (!frozen_) {
    frozen_ = true;
    report_ = make_report();
  } else {
    PYCCL_MARK("frozen twice");
  }
  send(report_);
}

Report Member::make_report() const {
  Report report;
  report.epoch = view_.epoch;
  for (const CommittedOperation& committed : committed_) {
    report.operations.push_back(
        {committed.op, OperationState::committed, committed.hint, OnLoss::retry, {}, {}});
  }
  for (const auto& [key, operation] : operations_) {
    if (!operation.posted) continue;
    const auto state = operation.whole ? OperationState::whole : OperationState::posted;
    const Descriptor& descriptor = operation.descriptor;
    report.operations.push_back(
        {key, state, operation.hint, descriptor.on_loss, descriptor.root_peer, operation.refusal});
  }
  for (const auto& [numbers, seq] : next_sequences_) {
    report.next_sequences.push_back({numbers.first, numbers.second, seq});
  }
  report.behind_failures = failures_.ends(group_);
  report.subgroups = view_.subgroups_of(subgroups_);
  return report;
}

void Member::handle(Time, const Prepare& prepare) {
  if (state_ == State::leaving || prepare.view.find(options_.peer) == nullptr) return;
  if (state_ == State::member) {
    if (!same(prepare.view.parent, view_.epoch)) return;
    freeze();
  }
  candidate_ = prepare.view.epoch;
  ConnectTo connect{candidate_, prepare.view.run, {}};
  for (const MemberInfo& member : prepare.view.members) {
    if (member.peer != options_.peer) connect.members.push_back(member);
  }
  outbox.push_back(std::move(connect));
}

void Member::prepared(Time, Epoch epoch, std::vector<PeerId> unreachable) {
  if (ended() || epoch != candidate_) return;
  send(Prepared{epoch, std::move(unreachable)});
}

void Member::handle(Time now, const View& view) {
  if (state_ == State::leaving || view.find(options_.peer) == nullptr) return;
  if (state_ == State::member) {
    if (!same(view.parent, view_.epoch) || !newer(view.epoch, view_.epoch)) return;
    for (const Decision& decision : view.decisions) apply(decision, view);
    end_subgroups(view);
  }
  state_ = State::member;
  adopt(view);
  outbox.push_back(ViewInstalled{view});
  // Only a boundary ends update(); over a death the request is carried on (rule R7).
  if (update_ && view.kind == ViewKind::boundary) {
    update_.reset();
    outbox.push_back(UpdateFinished{});
  }
  if (update_) update_->sent = false;  // an operation that waited for this view comes first
  restart_operations(now);
  resend_requests();
  send_update_if_quiet();
}

void Member::apply(const Decision& decision, const View& next) {
  const OpKey key = decision.op;
  const auto found = operations_.find(key);
  const bool posted = found != operations_.end() && found->second.posted;
  if (!posted) {
    if (decision.outcome != Outcome::failed || key.seq < posted_below(numbering(key))) return;
    // Not posted here yet: it fails at once when it will be.
    if (key.group == group_ || learn_subgroup(key.group, next)) {
      failures_.add(key, decision.status);
    }
    return;
  }
  if (decision.outcome == Outcome::committed) {
    PYCCL_MARK("committed by a decision");
    bool hint = decision.hint;
    if (PYCCL_MUTANT("live-pending")) hint = joiners_pending();
    outbox.push_back(OperationCommitted{{view_.epoch, key}, hint});
  } else if (decision.outcome == Outcome::failed) {
    outbox.push_back(OperationFailed{key, decision.status});
  } else if (decision.status.peer() != options_.peer) {
    PYCCL_MARK("posted here while another member withdrew it");
    return;
  } else {
    PYCCL_MARK("withdrawn: its number is free again");
    PYCCL_ASSERT(next_sequence(numbering(key)) == key.seq + 1);
    next_sequence(numbering(key)) = key.seq;
    const bool counted = !is_subgroup(key.group) && !PYCCL_MUTANT("withdrawn-call-makes-due");
    if (counted) --calls_since_boundary_;
    outbox.push_back(OperationWithdrawn{key});
  }
  close(key);
}

void Member::adopt(const View& view) {
  view_ = view;
  group_peers_ = view.group_members(group_);
  frozen_ = false;
  ++heard_;  // of failures, at least
  report_ = {};
  committed_.clear();
  if (view.kind == ViewKind::boundary) {
    pending_ = 0;  // who still waits is said right behind it
    // What is open was called while the view was made, and begins behind the boundary.
    calls_since_boundary_ =
        static_cast<std::size_t>(std::ranges::count_if(operations_, [](const auto& each) {
          return each.second.posted && !is_subgroup(each.first.group);
        }));
  }
  for (const NextSequence& next : view.next_sequences) {
    const Numbering numbers{next.group, next.tag};
    if (next.group != group_ || !room_for(numbers)) continue;
    std::uint32_t& own = next_sequence(numbers);
    own = std::max(own, next.seq);
    failures_.drop_below({next.group, next.tag, own});
  }
  // Nothing that was said of operations in the former view holds in this one.
  foreign_counts_.clear();
  for (auto at = operations_.begin(); at != operations_.end();) {
    Operation& operation = at->second;
    operation.started = operation.whole = operation.hint = operation.late = false;
    if (PYCCL_MUTANT("wrong-contributor-count")) {
      for (auto& [peer, arrival] : operation.arrivals) arrival.posted = false;
    } else {
      operation.arrivals.clear();
    }
    at = operation.posted ? std::next(at) : operations_.erase(at);
  }
  std::erase_if(broken_, [&](PeerId peer) { return view.find(peer) == nullptr; });
  std::erase_if(last_seen_, [&](const auto& seen) { return view.find(seen.first) == nullptr; });
}

void Member::restart_operations(Time now) {
  std::vector<std::pair<std::uint64_t, OpKey>> order;
  for (const auto& [key, operation] : operations_) {
    if (operation.refusal.ok()) order.emplace_back(operation.ordinal, key);
  }
  std::ranges::sort(order);
  for (const auto& [ordinal, key] : order) {
    PYCCL_MARK("operation restarts in a new view");
    start(now, key, operations_.at(key));
  }
  auto held = std::exchange(held_, {});
  for (auto& [from, messages] : held) {
    for (const Message& message : messages) receive_from(now, from, message);
  }
}

// Update says: all is quiet here. Sent while operations run, it would let a joiner into the midst
// of one.
void Member::send_update_if_quiet() {
  if (!update_ || update_->sent || frozen_ || state_ != State::member) return;
  if (open_count_ > 0 && !PYCCL_MUTANT("joiner-inside-operation")) return;
  update_->sent = true;
  send(Update{view_.epoch});
}

}  // namespace pyccl::protocol
