// Member: operations, from post() to their end, between members only.
#include <algorithm>
#include <bit>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "protocol/member.hpp"

namespace pyccl::protocol {

std::uint32_t& Member::next_sequence(Numbering numbers) {
  if (PYCCL_MUTANT("sequence-shared-between-tags")) numbers.second = 0;
  return next_sequences_[numbers];
}

// The next number, without making a place for a tag that only others have used.
std::uint32_t Member::posted_below(Numbering numbers) const {
  if (PYCCL_MUTANT("sequence-shared-between-tags")) numbers.second = 0;
  const auto found = next_sequences_.find(numbers);
  return found == next_sequences_.end() ? 0 : found->second;
}

bool Member::room_for(Numbering numbers) const {
  return next_sequences_.contains(numbers) || next_sequences_.size() < tags_max;
}

Status Member::may_post(const Call& call) const {
  if (state_ == State::joiner) return {Code::not_admitted, "operation before admission"};
  if (state_ != State::member) return gone("operation");
  if (!call.members.empty()) {
    if (Status status = may_use(call.group, call.members); !status.ok()) return status;
  }
  const PeerId root = call.descriptor.root_peer;
  if (root && !call.members.empty() &&
      std::ranges::find(call.members, root) == call.members.end()) {
    return {Code::invalid_argument, "the root is no member of the subgroup"};
  }
  const std::vector<PeerId>& ranks = call.members.empty() ? group_peers_ : call.members;
  if (Status status = check_amounts(call, ranks); !status.ok()) return status;
  if (call.descriptor.parts.size() > parts_max) {
    return {Code::limit_exceeded,
            "arrays of more than " + std::to_string(parts_max) + " data types"};
  }
  return may_number({call.members.empty() ? group_ : call.group, call.tag});
}

Status Member::may_number(Numbering numbers) const {
  if (open_count_ >= operations_open_max) {
    return {Code::limit_exceeded, "more than " + std::to_string(operations_open_max) +
                                      " operations at once: wait for some of them"};
  }
  if (!room_for(numbers)) {
    return {Code::limit_exceeded, "more than " + std::to_string(tags_max) + " tags in one run"};
  }
  // If all agree to withdraw the cancelled one, its number must be the last.
  const auto cancelled = cancelled_.lower_bound({numbers.first, numbers.second, 0});
  if (cancelled != cancelled_.end() && numbering(*cancelled) == numbers) {
    return {Code::invalid_argument, "an operation of this tag is being cancelled: wait for it"};
  }
  return {};
}

Result<OpKey> Member::post(Time now, Call call) {
  if (Status status = may_post(call); !status.ok()) return status;
  const GroupId group = call.members.empty() ? group_ : call.group;
  if (!call.members.empty()) subgroups_.try_emplace(group, std::move(call.members));
  const Numbering numbers{group, call.tag};
  const OpKey key{group, call.tag, next_sequence(numbers)++};
  // Those of some members are no business of the others, who would not know of them.
  if (!is_subgroup(group)) ++calls_since_boundary_;
  if (auto failure = failures_.take(key)) {
    PYCCL_MARK("posted after the others had failed it");
    if (is_subgroup(group)) PYCCL_MARK("posted after the others of the subgroup had failed it");
    failures_.drop_below(key);
    outbox.push_back(OperationFailed{key, *failure});
    return key;
  }
  Operation& operation = operations_[key];
  PYCCL_ASSERT(!operation.posted);
  forget_strangers(key, operation);
  operation.posted = true;
  operation.descriptor = std::move(call.descriptor);
  operation.weight = call.weight;
  operation.gives = std::move(call.gives);
  operation.takes = std::move(call.takes);
  if (operation.descriptor.uneven) operation.ranks = participants(key);
  operation.deadline = operation.alarm = call.deadline;
  operation.ordinal = posts_++;
  if (call.deadline != never) alarms_.emplace(call.deadline, key);
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

// What was called with an eye to the members of a view may come to start in another one. A decision
// must end it then: others may have begun it where it was right, or will call it yet.
Status Member::may_start(OpKey key, const Operation& operation) const {
  const PeerId root = operation.descriptor.root_peer;
  if (root && !takes_part(root, key) && !PYCCL_MUTANT("late-root-ignored")) {
    PYCCL_MARK("its root is gone before it starts");
    return {
        Code::peer_lost,
        to_string(key) + ": its root, peer " + to_string(root) + ", is not in the view any more",
        root};
  }
  if (!operation.descriptor.uneven || operation.ranks == participants(key)) return {};
  PYCCL_MARK("amounts for another view's ranks");
  for (PeerId peer : operation.ranks) {
    if (takes_part(peer, key)) continue;
    return {Code::peer_lost,
            to_string(key) + ": peer " + to_string(peer) +
                ", for which amounts were given, is not in the view any more",
            peer};
  }
  return {Code::mismatch, to_string(key) + ": amounts were given for " +
                              std::to_string(operation.ranks.size()) +
                              " ranks, before others joined them"};
}

void Member::start(Time now, OpKey key, Operation& operation) {
  if (Status status = may_start(key, operation); !status.ok()) {
    return want_end(key, operation, std::move(status));
  }
  operation.started = true;
  ++operation.attempt;
  outbox.push_back(StartOperation{{view_.epoch, key}, operation.attempt});
  for (PeerId peer : others_in(key)) say_posted(peer, key, operation);
  for (auto& [peer, arrival] : operation.arrivals) match(now, key, operation, peer, arrival);
}

void Member::say_posted(PeerId to, OpKey key, const Operation& operation) {
  Posted posted{{view_.epoch, key},
                operation.descriptor,
                std::bit_cast<std::uint64_t>(operation.weight),
                0,
                0};
  if (operation.descriptor.uneven) {
    const auto rank = static_cast<std::size_t>(*rank_in(key, to));
    posted.gives = operation.gives[rank];
    posted.takes = operation.takes[rank];
  }
  outbox.push_back(SendToPeer{to, std::move(posted)});
}

// Both have posted it: with equal descriptors they may exchange data; else this member wants it to
// end, and the decision tells everybody the same text.
void Member::match(Time now, OpKey key, Operation& operation, PeerId from, Arrival& arrival) {
  if (!arrival.posted || !operation.started) return;
  if (arrival.descriptor != operation.descriptor) {
    PYCCL_MARK("descriptors differ");
    return refuse(now, key, different(key, operation, from, arrival));
  }
  if (Status unequal = unequal_amounts(key, operation, from, arrival); !unequal.ok()) {
    PYCCL_MARK("amounts differ");
    return refuse(now, key, std::move(unequal));
  }
  const auto weight = std::bit_cast<double>(arrival.weight);
  if (!allows_weight(operation.descriptor, weight)) {
    return refuse(now, key,
                  Status(Code::protocol_violation,
                         to_string(key) + ": " + name_in(key, from) + " takes part in " +
                             to_string(operation.descriptor) + " with weight " +
                             std::to_string(weight) + ", which no caller can give",
                         from));
  }
  arrival.descriptor = {};
  outbox.push_back(PeerPosted{{view_.epoch, key}, from, weight});
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
  if (from == options_.peer || !may_take_part(from, key)) return nullptr;
  const auto found = operations_.find(key);
  if (found == operations_.end() && key.seq < posted_below(numbering(key))) return nullptr;
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
  arrival.gives = posted.gives;
  arrival.takes = posted.takes;
  if (!operation->posted) arrival.heard = ++heard_;
  if (!stopped(*operation)) match(now, posted.op.key, *operation, from, arrival);
}

std::optional<std::uint64_t> Member::called_by(PeerId peer, Numbering numbers) const {
  if (state_ != State::member || frozen_) return std::nullopt;
  const OpKey next{numbers.first, numbers.second, posted_below(numbers)};
  if (failures_.contains(next)) return 0;
  const auto operation = operations_.find(next);
  if (operation == operations_.end()) return std::nullopt;
  // Others may have spoken of a subgroup that is none of theirs, while it is not known here.
  const auto arrival = operation->second.arrivals.find(peer);
  if (arrival == operation->second.arrivals.end() || !arrival->second.posted) return std::nullopt;
  return arrival->second.heard;
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
  if (is_subgroup(op.key.group) && !PYCCL_MUTANT("hint-of-a-subgroup")) operation.hint = false;
  for (PeerId peer : others_in(op.key)) {
    outbox.push_back(SendToPeer{peer, Done{op, operation.hint}});
  }
  commit_if_done(op.key);
}

bool Member::done_by_all(OpKey key, const Operation& operation) const {
  std::size_t done = 0;
  for (const auto& [peer, arrival] : operation.arrivals) done += arrival.done ? 1 : 0;
  const std::size_t others = participants(key).size() - 1;
  if (PYCCL_MUTANT("commit-after-first-done")) return done >= std::min<std::size_t>(1, others);
  if (PYCCL_MUTANT("commit-by-majority")) return 2 * (done + 1) > others + 1;
  if (PYCCL_MUTANT("wrong-contributor-count")) return done >= others;
  return done == others;
}

// Done from everybody: all hold the whole result, so whatever happens from here, all will commit.
void Member::commit_if_done(OpKey key) {
  const Operation& operation = operations_.at(key);
  if (!operation.whole || !done_by_all(key, operation)) return;
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
  for (const auto& [peer, arrival] : found->second.arrivals) uncount(peer);
  alarms_.erase({found->second.alarm, key});
  cancelled_.erase(key);
  operations_.erase(found);
  --open_count_;
  send_update_if_quiet();
}

void Member::uncount(PeerId peer) {
  const auto count = foreign_counts_.find(peer);
  if (count != foreign_counts_.end() && count->second > 0) --count->second;
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
  want_end(key, operation, Status(Code::timeout, to_string(key) + ": " + lateness(key, operation)));
}

std::string Member::lateness(OpKey key, const Operation& operation) const {
  std::string absent;
  std::string unfinished;
  for (PeerId peer : others_in(key)) {
    const auto arrival = operation.arrivals.find(peer);
    if (arrival != operation.arrivals.end() && arrival->second.done) continue;
    if (arrival != operation.arrivals.end() && arrival->second.posted) {
      unfinished += (unfinished.empty() ? "" : ", ") + name_in(key, peer);
      continue;
    }
    const auto seen = last_seen_.find(peer);
    absent += (absent.empty() ? "" : ", ") + name_in(key, peer) +
              (seen == last_seen_.end() ? " (not seen yet)"
                                        : " (last seen at " + to_string(seen->second) + ")");
  }
  std::string text;
  if (!operation.started) text = "waited for the next view";
  if (!absent.empty()) text += (text.empty() ? "" : "; ") + ("did not arrive: " + absent);
  if (!unfinished.empty()) {
    text += (text.empty() ? "" : "; ") + ("arrived, not finished: " + unfinished);
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
  std::string text = to_string(op) + ": " + lateness(op, found->second);
  if (!found->second.posted) text += "; not posted here";
  if (found->second.whole) text += "; finished here";
  return text + (frozen_ ? "; frozen until the next view" : "");
}

}  // namespace pyccl::protocol
