// What tests need to drive a Member or a Coordinator by hand.
#pragma once

#include <bit>
#include <utility>
#include <vector>

#include "protocol/coordinator.hpp"
#include "protocol/member.hpp"

namespace pyccl::protocol::test {

inline constexpr Time now{1'000'000'000};
inline constexpr PeerId me{1};
inline constexpr PeerId other{2};
inline const GroupId group = group_id("default");

inline MemberInfo info(PeerId peer) { return {peer, "default", Role::worker, {"127.0.0.1:1"}}; }

inline View view_of(const std::vector<PeerId>& peers, Epoch epoch, Epoch parent = {}) {
  View view;
  view.run = {77};
  view.epoch = epoch;
  view.parent = parent;
  for (PeerId peer : peers) view.members.push_back(info(peer));
  return view;
}

// All effects of one kind; what else was said is dropped.
template <class Effect, class Machine>
std::vector<Effect> take(Machine& machine) {
  std::vector<Effect> found;
  for (auto& effect : std::exchange(machine.outbox, {})) {
    if (auto* one = std::get_if<Effect>(&effect)) found.push_back(std::move(*one));
  }
  return found;
}

template <class Content>
std::vector<Content> said_to(const Coordinator& coordinator, PeerId peer) {
  std::vector<Content> found;
  for (const auto& effect : coordinator.outbox) {
    const auto* send = std::get_if<SendTo>(&effect);
    if (send == nullptr || send->to != peer) continue;
    if (const auto* content = std::get_if<Content>(&send->message)) found.push_back(*content);
  }
  return found;
}

// What it has said to another peer, or to the coordinator, of one kind.
template <class Content>
std::vector<Content> said_to(const Member& member, PeerId peer) {
  std::vector<Content> found;
  for (const auto& effect : member.outbox) {
    const auto* send = std::get_if<SendToPeer>(&effect);
    if (send == nullptr || send->to != peer) continue;
    if (const auto* content = std::get_if<Content>(&send->message)) found.push_back(*content);
  }
  return found;
}

template <class Content>
std::vector<Content> reported(const Member& member) {
  std::vector<Content> found;
  for (const auto& effect : member.outbox) {
    const auto* send = std::get_if<SendToCoordinator>(&effect);
    if (send == nullptr) continue;
    if (const auto* content = std::get_if<Content>(&send->message)) found.push_back(*content);
  }
  return found;
}

inline Member member_in(const View& view) {
  Member member({me, "default", Role::worker, {"127.0.0.1:1"}, {}}, now);
  member.coordinator_connected(now);
  member.receive(now, Welcome{view.run, view.epoch.incarnation, 4000});
  member.receive(now, view);
  member.outbox.clear();
  return member;
}

inline Descriptor floats(std::uint64_t count) {
  Descriptor descriptor;
  descriptor.parts = {{PYCCL_F32, count}};
  return descriptor;
}

inline Call call(std::uint32_t tag, const Descriptor& descriptor, Time deadline = never) {
  Call call;
  call.tag = tag;
  call.descriptor = descriptor;
  call.deadline = deadline;
  return call;
}

// A call of the subgroup of these members.
inline Call call_of(const std::vector<PeerId>& members, std::uint32_t tag,
                    const Descriptor& descriptor) {
  Call one = call(tag, descriptor);
  one.group = subgroup_id(group, members, "");
  one.members = members;
  return one;
}

inline Posted posted(OpId op, const Descriptor& descriptor, double weight = 1.0) {
  return {op, descriptor, std::bit_cast<std::uint64_t>(weight), 0, 0};
}

}  // namespace pyccl::protocol::test
