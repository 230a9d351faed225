// Coordinator: beginnings, time, and what its other parts share.
#include "protocol/coordinator.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"

namespace pyccl::protocol {

Coordinator::Coordinator(CoordinatorOptions options, std::optional<CoordinatorState> recovered,
                         Time now)
    : options_(std::move(options)), heartbeat_due_(now + options_.timing.heartbeat_interval()) {
  if (recovered) {
    state_ = std::move(*recovered);
  } else {
    state_.run = state_.view.run = options_.fresh_run;
  }
  ++state_.incarnation;
  last_epoch_ = {state_.incarnation, 0};
  // Durable before anybody hears of it: no two coordinators have the same incarnation.
  outbox.push_back(Persist{state_});
  reports_.begin(kept());
  updates_.begin(kept());
  if (state_.view.members.empty()) return;
  phase_ = Phase::recovering;
  recovery_deadline_ = now + options_.timing.recovery_limit;
  for (const MemberInfo& member : state_.view.members) {
    Contact contact(now);
    contact.detector.disconnected(now);
    contacts_.emplace(member.peer, contact);
  }
  note("restarted: waiting for the members of view " + to_string(state_.view.epoch));
}

void Coordinator::send(PeerId to, Message message) {
  const auto contact = contacts_.find(to);
  if (contact == contacts_.end() || !contact->second.detector.is_connected()) return;
  outbox.push_back(SendTo{to, std::move(message)});
}

void Coordinator::send_to_members(const Message& message) {
  for (PeerId peer : kept()) send(peer, message);
}

void Coordinator::note(std::string text) { outbox.push_back(CoordinatorNote{std::move(text)}); }

void Coordinator::hang_up(PeerId peer, std::string reason) {
  outbox.push_back(Disconnect{peer, std::move(reason)});
}

bool Coordinator::is_kept(PeerId peer) const {
  return state_.view.find(peer) != nullptr && !lost_.contains(peer);
}

std::set<PeerId> Coordinator::kept() const {
  std::set<PeerId> peers;
  for (const MemberInfo& member : state_.view.members) {
    if (!lost_.contains(member.peer)) peers.insert(member.peer);
  }
  return peers;
}

std::string Coordinator::name_of(PeerId peer) const {
  std::string text = "peer " + to_string(peer);
  const MemberInfo* member = state_.view.find(peer);
  if (member == nullptr) return text;
  text += " (rank " + std::to_string(*state_.view.rank_of(peer));
  if (member->group != "default") text += " of group " + member->group;
  return text + ")";
}

void Coordinator::receive(Time now, PeerId from, const Message& message) {
  const bool introduces =
      std::holds_alternative<Hello>(message) || std::holds_alternative<Register>(message);
  if (!introduces) {
    // Hung up already, or never introduced: nothing that it says counts.
    const auto contact = contacts_.find(from);
    if (contact == contacts_.end() || !contact->second.detector.is_connected()) return;
    contact->second.detector.heard(now);
  }
  std::visit(
      [&](const auto& content) {
        if constexpr (requires { handle(now, from, content); }) handle(now, from, content);
      },
      message);
  advance(now);
}

void Coordinator::say_heartbeats(Time now) {
  heartbeat_due_ = now + options_.timing.heartbeat_interval();
  for (const auto& [peer, contact] : contacts_) send(peer, Heartbeat{});
  if (phase_ != Phase::stable || updates_.answers().empty()) return;
  Awaited awaited{state_.view.epoch, {}};
  for (const MemberInfo& member : state_.view.members) {
    if (updates_.answers().contains(member.peer)) continue;
    if (awaited.missing.size() < awaited_max) awaited.missing.push_back(member.peer);
  }
  for (const auto& [peer, yes] : updates_.answers()) send(peer, awaited);
}

void Coordinator::tick(Time now) {
  // Whoever was stopped for a while must not take the others' silence in that time for death.
  const Duration slept = now - heartbeat_due_;
  if (slept > options_.timing.heartbeat_interval()) {
    PYCCL_MARK("coordinator was stopped for a while");
    for (auto& [peer, contact] : contacts_) contact.detector.forgive(slept);
    for (auto& [link, since] : complaints_) since = since + slept;
    if (recovery_deadline_ != never) recovery_deadline_ = recovery_deadline_ + slept;
    if (prepare_deadline_ != never) prepare_deadline_ = prepare_deadline_ + slept;
  }
  if (now >= prepare_deadline_) {
    PYCCL_MARK("not all were prepared in time");
    prepare_deadline_ = never;
    prepare_late_ = true;
  }
  if (now >= heartbeat_due_) say_heartbeats(now);
  probe_again(now);
  judge(now);
  judge_links(now);
  advance(now);
}

std::optional<Time> Coordinator::next_deadline() const {
  Time next = std::min({heartbeat_due_, recovery_deadline_, prepare_deadline_});
  for (const auto& [peer, contact] : contacts_) {
    if (lost_.contains(peer)) continue;
    if (phase_ == Phase::recovering && !registered_.contains(peer) && !is_joiner(peer)) continue;
    next = std::min({next, contact.probe_due, contact.detector.next_deadline(options_.timing)});
  }
  for (const auto& [link, since] : complaints_) {
    if (is_kept(link.first) && is_kept(link.second)) {
      next = std::min(next, since + options_.timing.cut_off_limit());
    }
  }
  return next;
}

}  // namespace pyccl::protocol
