// Member: its connection to the coordinator, its clock, and its end.
#include "protocol/member.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "protocol/topology.hpp"

namespace pyccl::protocol {

Member::Member(MemberOptions options, Time now)
    : options_(std::move(options)),
      group_(group_id(options_.group)),
      last_heard_(now),
      heartbeat_due_(now),
      heartbeat_interval_(options_.timing.heartbeat_interval()),
      silence_limit_(options_.timing.heartbeat_limit) {
  PYCCL_ASSERT(options_.peer);
}

void Member::send(Message message) {
  if (connected_) outbox.push_back(SendToCoordinator{std::move(message)});
}

void Member::note(std::string text) { outbox.push_back(Note{std::move(text)}); }

void Member::coordinator_connected(Time now) {
  if (ended()) return;
  connected_ = true;
  told_measured_.clear();
  last_heard_ = now;
  heartbeat_due_ = now + heartbeat_interval_;
  if (options_.group.size() > name_bytes_max) {
    return end({Code::invalid_argument,
                "the group's name is longer than " + std::to_string(name_bytes_max) + " bytes"});
  }
  if (state_ == State::joiner) {
    const MemberInfo self{options_.peer, options_.group, options_.role, options_.addresses};
    send(Hello{version, {}, self});
    return tell_measured();
  }
  View installed = view_;
  installed.decisions.clear();
  installed.next_sequences.clear();
  installed.subgroups.clear();
  send(Register{version, options_.peer, std::move(installed)});
  tell_measured();
  resend_requests();
}

// Whatever was said on the former connection may be lost, so everything that is still wanted is
// said again. The same after each view, for requests count only for the epoch they name (rule R8).
void Member::resend_requests() {
  // Only a report that froze this member is a report (rule R2).
  if (frozen_) {
    send(report_);
  } else if (PYCCL_MUTANT("register-as-report")) {
    send(make_report());
  }
  if (state_ == State::leaving) send(Leave{view_.epoch});
  for (PeerId peer : broken_) {
    if (view_.find(peer) != nullptr) send(Suspect{view_.epoch, peer});
  }
  if (update_ && update_->sent) send(Update{view_.epoch});
  for (const auto& [key, operation] : operations_) {
    if (operation.posted && !operation.refusal.ok()) {
      send(Refuse{view_.epoch, key, operation.refusal});
    }
  }
}

void Member::measured(Time, std::vector<MeasuredLink> links) {
  if (ended()) return;
  measured_ = std::move(links);
  if (differ_notably(told_measured_, measured_)) tell_measured();
}

void Member::tell_measured() {
  if (measured_.empty() || !connected_) return;
  told_measured_ = measured_;
  send(Measured{measured_});
}

void Member::coordinator_disconnected(Time now) {
  if (!ended() && connected_) redial(now, "the connection to the coordinator broke");
}

void Member::redial(Time now, std::string reason) {
  connected_ = false;
  if (!away_since_) away_since_ = now;
  if (state_ == State::leaving) return finish_leave();  // it goes all the same
  outbox.push_back(RedialCoordinator{std::move(reason)});
}

void Member::receive(Time now, const Message& message) {
  if (ended() || !connected_) return;
  last_heard_ = now;
  away_since_.reset();
  std::visit(
      [&](const auto& content) {
        if constexpr (requires { handle(now, content); }) handle(now, content);
      },
      message);
}

void Member::channel_broken(Time, PeerId peer) {
  if (ended() || !broken_.insert(peer).second) return;
  if (view_.find(peer) != nullptr) send(Suspect{view_.epoch, peer});
}

void Member::channel_restored(Time, PeerId peer) {
  if (ended()) return;
  if (broken_.erase(peer) > 0) send(Reachable{view_.epoch, peer});
  if (state_ != State::member) return;
  for (const auto& [key, operation] : operations_) {
    if (!operation.started || !takes_part(peer, key)) continue;
    PYCCL_MARK("posted sent again to a peer that was cut off");
    say_posted(peer, key, operation);
    if (operation.whole) {
      outbox.push_back(SendToPeer{peer, Done{{view_.epoch, key}, operation.hint}});
    }
  }
  // What this member has committed the peer may still wait for.
  for (const CommittedOperation& committed : committed_) {
    if (!takes_part(peer, committed.op)) continue;
    outbox.push_back(SendToPeer{peer, Done{{view_.epoch, committed.op}, committed.own_hint}});
  }
}

Status Member::request_update(Time, Time deadline) {
  if (state_ == State::joiner) return {Code::not_admitted, "update() before this peer is admitted"};
  if (state_ != State::member) return gone("update()");
  if (update_) return {Code::invalid_argument, "update() is already waiting"};
  update_ = UpdateRequest{deadline, false, {}};
  send_update_if_quiet();
  return {};
}

Status Member::request_leave(Time, Time deadline) {
  if (state_ == State::leaving || ended()) return {Code::closed, "this peer has left already"};
  if (state_ == State::joiner || !connected_) {
    PYCCL_MARK("left without telling the coordinator");
    finish_leave();
    return {};
  }
  state_ = State::leaving;
  leave_deadline_ = deadline;
  const Status closed(Code::closed, "this peer left while the call was open");
  for (const auto& [key, operation] : operations_) {
    if (operation.posted) outbox.push_back(OperationFailed{key, closed});
  }
  operations_.clear();
  alarms_.clear();
  if (update_) outbox.push_back(UpdateFinished{closed});
  update_.reset();
  send(Leave{view_.epoch});
  return {};
}

void Member::finish_leave() {
  state_ = State::ended;
  outbox.push_back(LeaveFinished{});
}

Status Member::gone(const std::string& call) const {
  return end_.ok() ? Status(Code::closed, call + " after this peer has left") : end_;
}

void Member::end(Status status) {
  state_ = State::ended;
  end_ = status;
  outbox.push_back(Ended{std::move(status)});
}

bool Member::withdraw_update() {
  if (ended() || !update_) return false;
  PYCCL_MARK("update() given up by its caller");
  if (frozen_) PYCCL_MARK("update() given up while the next view is made");
  if (update_->sent) send(UpdateWithdrawn{view_.epoch});
  update_.reset();
  return true;
}

void Member::expire_update() {
  std::string text = "not all members called update() in time";
  if (!update_->missing.empty()) text += "; missing: " + names_of(update_->missing);
  if (!connected_) text += "; the coordinator can't be reached";
  const Code code = connected_ ? Code::timeout : Code::coordinator_unavailable;
  if (update_->sent) send(UpdateWithdrawn{view_.epoch});
  update_.reset();
  outbox.push_back(UpdateFinished{Status(code, std::move(text))});
}

void Member::tick(Time now) {
  if (ended()) return;
  if (now >= leave_deadline_) return finish_leave();
  if (connected_ && now >= last_heard_ + silence_limit_) {
    PYCCL_MARK("silent coordinator dialled again");
    redial(now, "the coordinator was silent");
    if (ended()) return;
  }
  if (connected_ && now >= heartbeat_due_) {
    send(Heartbeat{});
    heartbeat_due_ = now + heartbeat_interval_;
  }
  if (now >= absence_borne()) {
    PYCCL_MARK("the coordinator was away too long");
    return end({Code::coordinator_unavailable, "the coordinator has been away too long"});
  }
  if (update_ && now >= update_->deadline) expire_update();
  ring(now);
}

// A connection alone is no sign of life: the system accepts it for a process that hangs.
Time Member::absence_borne() const {
  if (!away_since_ || state_ != State::member) return never;
  return *away_since_ + options_.timing.coordinator_limit;
}

std::optional<Time> Member::next_deadline() const {
  if (ended()) return std::nullopt;
  Time next = std::min(leave_deadline_, absence_borne());
  if (connected_) {
    next = std::min({next, heartbeat_due_, last_heard_ + silence_limit_});
  }
  if (update_) next = std::min(next, update_->deadline);
  if (!alarms_.empty()) next = std::min(next, alarms_.begin()->first);
  if (next == never) return std::nullopt;
  return next;
}

Member::Load Member::load() const {
  Load load{open_count_,           operations_.size(),       0,
            committed_.size(),     failures_.reason_count(), subgroups_.size(),
            next_sequences_.size()};
  for (const auto& [peer, messages] : held_) load.held += messages.size();
  return load;
}

std::string Member::name_of(PeerId peer) const {
  const auto rank = view_.rank_of(peer);
  if (!rank) return "peer " + to_string(peer);
  return "rank " + std::to_string(*rank);
}

std::string Member::names_of(const std::vector<PeerId>& peers) const {
  std::string text;
  for (PeerId peer : peers) text += (text.empty() ? "" : ", ") + name_of(peer);
  return text;
}

}  // namespace pyccl::protocol
