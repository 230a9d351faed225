// Member: operations, from post() to their end, between members only.
#include <algorithm>
#include <bit>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "protocol/member.hpp"

namespace pyccl::protocol {

std::uint32_t& Member::next_sequence(std::uint32_t tag) {
  return next_sequences_[PYCCL_MUTANT("sequence-shared-between-tags") ? 0 : tag];
}

// The next number of a tag, without making a place for a tag that only others have used.
std::uint32_t Member::posted_below(std::uint32_t tag) const {
  const auto found = next_sequences_.find(PYCCL_MUTANT("sequence-shared-between-tags") ? 0 : tag);
  return found == next_sequences_.end() ? 0 : found->second;
}

bool Member::room_for_tag(std::uint32_t tag) const {
  return next_sequences_.contains(tag) || next_sequences_.size() < tags_max;
}

Status Member::may_post(std::uint32_t tag) const {
  if (state_ == State::joiner) return {Code::not_admitted, "operation before admission"};
  if (state_ != State::member) return gone("operation");
  if (open_count_ >= operations_open_max) {
    return {Code::limit_exceeded, "more than " + std::to_string(operations_open_max) +
                                      " operations at once: wait for some of them"};
  }
  if (!room_for_tag(tag)) {
    return {Code::limit_exceeded, "more than " + std::to_string(tags_max) + " tags in one run"};
  }
  // If all agree to withdraw the cancelled one, its number must be the last.
  const auto cancelled = cancelled_.lower_bound({group_, tag, 0});
  if (cancelled != cancelled_.end() && cancelled->tag == tag) {
    return {Code::invalid_argument, "an operation of this tag is being cancelled: wait for it"};
  }
  return {};
}

Result<OpKey> Member::post(Time now, std::uint32_t tag, const Descriptor& descriptor, double weight,
                           Time deadline) {
  if (Status status = may_post(tag); !status.ok()) return status;
  if (descriptor.parts.size() > parts_max) {
    return Status(Code::limit_exceeded,
                  "arrays of more than " + std::to_string(parts_max) + " data types");
  }
  const OpKey key{group_, tag, next_sequence(tag)++};
  if (auto failure = failures_.take(key)) {
    PYCCL_MARK("posted after the others had failed it");
    failures_.drop_below(tag, key.seq);
    outbox.push_back(OperationFailed{key, *failure});
    return key;
  }
  Operation& operation = operations_[key];
  PYCCL_ASSERT(!operation.posted);
  operation.posted = true;
  operation.descriptor = descriptor;
  operation.weight = weight;
  operation.deadline = operation.alarm = deadline;
  operation.ordinal = posts_++;
  if (deadline != never) alarms_.emplace(deadline, key);
  ++open_count_;
  if (update_ && update_->sent && !frozen_) {
    PYCCL_MARK("posted by one thread while another waits in update()");
    update_->sent = false;
    send(UpdateWithdrawn{view_.epoch});
  }
  operation.late = frozen_;
  if (!stopped(operation)) start(now, key, operation);
  return key;
}

// Nothing starts, matches or commits while this member is frozen.
bool Member::stopped(const Operation& operation) const {
  if (operation.late && PYCCL_MUTANT("freeze-ignored-by-late-operation")) return false;
  return frozen_;
}

void Member::start(Time now, OpKey key, Operation& operation) {
  operation.started = true;
  ++operation.attempt;
  const OpId op{view_.epoch, key};
  const auto weight = std::bit_cast<std::uint64_t>(operation.weight);
  outbox.push_back(StartOperation{op, operation.attempt});
  for (PeerId peer : peers_of_group()) {
    outbox.push_back(SendToPeer{peer, Posted{op, operation.descriptor, weight}});
  }
  for (auto& [peer, arrival] : operation.arrivals) match(now, key, operation, peer, arrival);
}

// Both have posted it: with equal descriptors they may exchange data; else this member wants it to
// end, and the decision tells everybody the same text.
void Member::match(Time now, OpKey key, Operation& operation, PeerId from, Arrival& arrival) {
  if (!arrival.posted || !operation.started) return;
  if (arrival.descriptor == operation.descriptor) {
    const auto weight = std::bit_cast<double>(arrival.weight);
    if (!allows_weight(operation.descriptor, weight)) {
      refuse(now, key,
             Status(Code::protocol_violation,
                    to_string(key) + ": " + name_of(from) + " takes part in " +
                        to_string(operation.descriptor) + " with weight " + std::to_string(weight) +
                        ", which no caller can give",
                    from));
      return;
    }
    arrival.descriptor = {};
    outbox.push_back(PeerPosted{{view_.epoch, key}, from, weight});
    return;
  }
  std::string mine = name_of(options_.peer) + " called " + to_string(operation.descriptor);
  std::string theirs = name_of(from) + " called " + to_string(arrival.descriptor);
  if (*view_.rank_of(from) < *view_.rank_of(options_.peer)) std::swap(mine, theirs);
  PYCCL_MARK("descriptors differ");
  refuse(now, key, Status(Code::mismatch, to_string(key) + ": " + mine + ", " + theirs, from));
}

void Member::receive_from(Time now, PeerId from, const Message& message) {
  if (ended() || state_ == State::leaving) return;
  if (const auto* posted = std::get_if<Posted>(&message)) accept(now, from, *posted);
  if (const auto* done = std::get_if<Done>(&message)) accept(now, from, *done);
}

// What belongs to a view that this member has not installed yet waits for it (rule R3). Others are
// at most one view ahead, since the view after that needs this member's report: the bound holds.
bool Member::hold_or_drop(PeerId from, Epoch epoch, const Message& message) {
  if (state_ == State::member && same(epoch, view_.epoch)) return false;
  if (state_ == State::member && !newer(epoch, view_.epoch)) return true;
  if (held_.size() >= members_max && !held_.contains(from)) return true;
  std::vector<Message>& messages = held_[from];
  if (messages.size() < held_max) {
    PYCCL_MARK("message of a later view held");
    messages.push_back(message);
  }
  return true;
}

// The operation that another member speaks of; none if it is over here, or none of ours, or if that
// member has more operations open than anybody may.
Member::Operation* Member::find_or_add(PeerId from, OpKey key) {
  if (key.group != group_ || from == options_.peer) return nullptr;
  if (std::ranges::find(group_peers_, from) == group_peers_.end()) return nullptr;
  const auto found = operations_.find(key);
  if (found == operations_.end() && key.seq < posted_below(key.tag)) return nullptr;
  const bool known = found != operations_.end() && found->second.arrivals.contains(from);
  if (!known) {
    std::size_t& count = foreign_counts_[from];
    if (count >= 2 * operations_open_max) return nullptr;
    ++count;
  }
  return &operations_[key];
}

void Member::accept(Time now, PeerId from, const Posted& posted) {
  if (hold_or_drop(from, posted.op.epoch, posted)) return;
  last_seen_[from] = posted.op.key;
  Operation* operation = find_or_add(from, posted.op.key);
  if (operation == nullptr) return;
  Arrival& arrival = operation->arrivals[from];
  if (arrival.posted) return;
  arrival.posted = true;
  arrival.descriptor = posted.descriptor;
  arrival.weight = posted.weight;
  if (!stopped(*operation)) match(now, posted.op.key, *operation, from, arrival);
}

void Member::accept(Time, PeerId from, const Done& done) {
  if (hold_or_drop(from, done.op.epoch, done)) return;
  Operation* operation = find_or_add(from, done.op.key);
  if (operation == nullptr) return;
  Arrival& arrival = operation->arrivals[from];
  if (arrival.done) return;
  arrival.done = true;
  arrival.hint = done.hint;
  commit_if_done(done.op.key);
}

void Member::whole(Time, OpId op) {
  if (state_ != State::member || !same(op.epoch, view_.epoch)) return;
  const auto found = operations_.find(op.key);
  if (found == operations_.end()) return;
  Operation& operation = found->second;
  if (!operation.started || operation.whole || !operation.refusal.ok()) return;
  if (stopped(operation) && !PYCCL_MUTANT("done-while-frozen")) return;
  operation.whole = true;
  operation.hint = joiners_pending();
  for (PeerId peer : peers_of_group()) outbox.push_back(SendToPeer{peer, Done{op, operation.hint}});
  commit_if_done(op.key);
}

bool Member::done_by_all(const Operation& operation) const {
  std::size_t done = 0;
  for (const auto& [peer, arrival] : operation.arrivals) done += arrival.done ? 1 : 0;
  const std::size_t others = group_peers_.size() - 1;
  if (PYCCL_MUTANT("commit-after-first-done")) return done >= std::min<std::size_t>(1, others);
  if (PYCCL_MUTANT("commit-by-majority")) return 2 * (done + 1) > others + 1;
  if (PYCCL_MUTANT("wrong-contributor-count")) return done >= others;
  return done == others;
}

// Done from everybody: all hold the whole result, so whatever happens from here, all will commit.
void Member::commit_if_done(OpKey key) {
  const Operation& operation = operations_.at(key);
  if (!operation.whole || !done_by_all(operation)) return;
  if (stopped(operation) && !PYCCL_MUTANT("done-while-frozen")) {
    PYCCL_MARK("the last Done came while frozen");
    return;
  }
  bool hint = operation.hint;
  for (const auto& [peer, arrival] : operation.arrivals) hint = hint || arrival.hint;
  if (PYCCL_MUTANT("own-hint-only")) hint = operation.hint;
  if (PYCCL_MUTANT("live-pending")) hint = joiners_pending();
  committed_.push_back({key, hint, operation.hint});
  // Who lags further behind than this learns from our next sequence number that it is committed;
  // only the hint is forgotten then.
  if (committed_.size() > committed_kept_max) committed_.pop_front();
  outbox.push_back(OperationCommitted{{view_.epoch, key}, hint});
  close(key);
}

void Member::close(OpKey key) {
  const auto found = operations_.find(key);
  for (const auto& [peer, arrival] : found->second.arrivals) {
    if (auto count = foreign_counts_.find(peer); count != foreign_counts_.end()) {
      if (count->second > 0) --count->second;
    }
  }
  alarms_.erase({found->second.alarm, key});
  cancelled_.erase(key);
  operations_.erase(found);
  --open_count_;
  send_update_if_quiet();
}

// Before its Done a member may refuse; after it only a decision may end the operation (rule R13).
void Member::refuse(Time, OpKey key, Status why) {
  PYCCL_ASSERT(!why.ok());
  const auto found = operations_.find(key);
  if (state_ != State::member || found == operations_.end() || !found->second.posted) return;
  if (found->second.whole) return;
  want_end(key, found->second, std::move(why));
}

void Member::want_end(OpKey key, Operation& operation, Status why) {
  if (!operation.refusal.ok()) return;
  operation.refusal = std::move(why);
  if (operation.refusal.code() == Code::cancelled) cancelled_.insert(key);
  send(Refuse{view_.epoch, key, operation.refusal});
}

// First the deadline; and if nobody has decided a good while after it, nobody will.
void Member::ring(Time now) {
  while (!alarms_.empty() && alarms_.begin()->first <= now) {
    const OpKey key = alarms_.begin()->second;
    alarms_.erase(alarms_.begin());
    Operation& operation = operations_.at(key);
    if (!operation.expired) expire(key, operation);
    // Armed again if a coordinator with a longer heartbeat limit has come meanwhile.
    operation.alarm = operation.deadline + options_.timing.decision_limit_with(silence_limit_);
    if (operation.alarm > now) {
      alarms_.emplace(operation.alarm, key);
      continue;
    }
    PYCCL_MARK("outcome unknown");
    return end({Code::coordinator_unavailable,
                "the outcome of " + to_string(key) +
                    " is unknown: its deadline passed and the coordinator did not decide"});
  }
}

void Member::expire(OpKey key, Operation& operation) {
  operation.expired = true;
  if (operation.whole) PYCCL_MARK("deadline passed after Done");
  want_end(key, operation, Status(Code::timeout, to_string(key) + ": " + lateness(operation)));
}

std::string Member::lateness(const Operation& operation) const {
  std::string absent;
  std::vector<PeerId> unfinished;
  for (PeerId peer : peers_of_group()) {
    const auto arrival = operation.arrivals.find(peer);
    if (arrival != operation.arrivals.end() && arrival->second.done) continue;
    if (arrival != operation.arrivals.end() && arrival->second.posted) {
      unfinished.push_back(peer);
      continue;
    }
    const auto seen = last_seen_.find(peer);
    absent += (absent.empty() ? "" : ", ") + name_of(peer) +
              (seen == last_seen_.end() ? " (not seen yet)"
                                        : " (last seen at " + to_string(seen->second) + ")");
  }
  std::string text;
  if (!operation.started) text = "waited for the next view";
  if (!absent.empty()) text += (text.empty() ? "" : "; ") + ("did not arrive: " + absent);
  if (!unfinished.empty()) {
    text += (text.empty() ? "" : "; ") + ("arrived, not finished: " + names_of(unfinished));
  }
  return text.empty() ? "all others have finished it" : text;
}

bool Member::said_done(OpKey op) const {
  const auto found = operations_.find(op);
  return found != operations_.end() && found->second.whole;
}

std::string Member::describe(OpKey op) const {
  const auto found = operations_.find(op);
  if (found == operations_.end()) return to_string(op) + " is not open";
  std::string text = to_string(op) + ": " + lateness(found->second);
  if (!found->second.posted) text += "; not posted here";
  if (found->second.whole) text += "; finished here";
  return text + (frozen_ ? "; frozen until the next view" : "");
}

}  // namespace pyccl::protocol
