// One step: post a batch in any order of tags, and with each operation of the first tag those of
// subgroups; wait for all of it, update() if joiners wait, think.
#include "sim/protocol/user.hpp"

#include <algorithm>
#include <vector>

#include "base/mark.hpp"
#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

constexpr std::uint32_t side_tag = 100;

// Some links, each end with an opinion of its own; now and then none.
std::vector<protocol::MeasuredLink> drawn_links(PeerId self, const protocol::View& view) {
  Prng prng(self.value * 31 + view.epoch.counter);
  std::vector<protocol::MeasuredLink> links;
  for (const protocol::MemberInfo& member : view.members) {
    if (member.peer == self || prng.chance(1, 4)) continue;
    const auto latency = static_cast<std::uint32_t>(prng.chance(1, 6) ? 0 : prng.between(1, 5000));
    const auto rate = static_cast<std::uint32_t>(prng.chance(1, 4) ? 0 : prng.between(1, 2000));
    links.push_back({member.peer, latency, rate});
  }
  return links;
}

}  // namespace

void User::installed(const protocol::View& view) {
  if (last_of_subgroup_ && std::ranges::any_of(last_of_subgroup_->members, [&](PeerId peer) {
        return view.find(peer) == nullptr;
      })) {
    peer_.after(Duration(0), [this] { use_ended_subgroup(); });
  }
  peer_.after(Duration(0), [this, view] { peer_.measured(drawn_links(peer_.id(), view)); });
  if (begun_) return;
  begun_ = true;
  think();
  if (world_.swarm.side_thread) peer_.after(world_.swarm.think, [this] { post_side(); });
}

void User::think() {
  const auto most = static_cast<std::uint64_t>(world_.swarm.think.count());
  Duration pause(static_cast<std::int64_t>(world_.users.below(most) + 1));
  if (world_.faults_on && world_.users.chance(world_.swarm.late_percent, 100)) {
    pause += std::chrono::milliseconds(world_.users.between(500, 12'000));
  }
  peer_.after(pause, [this] { step(); });
}

void User::step() {
  if (next_seq_ >= stop_) {
    idle_ = true;
    return;
  }
  if (world_.faults_on && world_.users.chance(world_.swarm.leave_permille, 1000)) {
    return peer_.leave(std::chrono::seconds(5));
  }
  std::vector<std::uint32_t> tags;
  for (int i = 0; i < world_.swarm.depth; ++i) {
    for (int tag = 0; tag < world_.swarm.tags; ++tag) {
      tags.push_back(static_cast<std::uint32_t>(tag));
    }
  }
  for (std::size_t i = tags.size(); i > 1; --i) {
    std::swap(tags[i - 1], tags[world_.users.below(i)]);
  }
  hint_ = false;
  posting_ = true;
  for (std::uint32_t tag : tags) {
    if (!peer_.alive()) return;
    post(tag);
  }
  posting_ = false;
  if (open_ == 0) batch_over();
}

void User::post(std::uint32_t tag) {
  protocol::Call call = group_call(calling(), tag);
  spoil(call);
  ++open_;
  const auto op = post(std::move(call));
  if (!op) {
    --open_;
    return;
  }
  if (tag != 0) return;
  next_seq_ = op->seq + 1;
  if (next_seq_ > subgroups_behind_) post_of_subgroups(op->seq);
}

void User::post_of_subgroups(std::uint32_t seq) {
  subgroups_behind_ = seq + 1;
  for (protocol::Call& call : subgroup_calls(calling(), seq)) {
    if (!peer_.alive()) return;
    spoil(call);
    last_of_subgroup_ = call;
    ++open_;
    if (!post(std::move(call))) --open_;
  }
}

// By a deadline that may be too short, and given up later at times.
std::optional<OpKey> User::post(protocol::Call call) {
  Duration deadline = world_.swarm.deadline;
  if (world_.faults_on && world_.users.chance(world_.swarm.short_deadline_percent, 100)) {
    deadline = std::chrono::milliseconds(world_.users.between(1, 800));
  }
  const auto op = peer_.post(call, deadline);
  if (!op.ok()) return std::nullopt;
  if (is_subgroup(op.value().group)) of_subgroups_[op.value()] = std::move(call);
  if (world_.faults_on && world_.users.chance(world_.swarm.cancel_permille, 1000)) {
    const auto delay = std::chrono::milliseconds(world_.users.below(400));
    peer_.after(delay, [this, op] { peer_.cancel(op.value()); });
  }
  return op.value();
}

// Now and then a user calls something else than the others.
void User::spoil(protocol::Call& call) {
  if (!world_.faults_on) return;
  if (!world_.users.chance(world_.swarm.mismatch_permille, 1000)) return;
  if (call.gives.empty()) {
    call.descriptor.parts.front().count += 1;
    return;
  }
  const auto& ranks =
      call.members.empty() ? peer_.member().participants({group_id(peer_.group())}) : call.members;
  const std::size_t rank = world_.users.below(ranks.size());
  if (ranks[rank] != peer_.id()) call.gives[rank] += 1;
}

// Nothing comes of it but an error (check_subgroups.cpp).
void User::use_ended_subgroup() {
  if (!last_of_subgroup_) return;
  PYCCL_MARK("a subgroup is used after its end");
  static_cast<void>(peer_.post(*last_of_subgroup_, world_.swarm.deadline));
  last_of_subgroup_.reset();
}

// Another thread of the same program, which knows nothing of update().
void User::post_side() {
  if (idle_ || next_seq_ >= stop_) return;
  ++side_open_;
  const protocol::Call call = group_call(calling(), side_tag);
  if (!peer_.post(call, world_.swarm.deadline).ok()) --side_open_;
}

Calling User::calling() const { return {world_.swarm, peer_.member(), group_id(peer_.group())}; }

// What of a subgroup is said of joiners the others do not hear.
void User::committed(OpKey op, bool hint) {
  ++commits;
  if (is_subgroup(op.group)) {
    PYCCL_MARK("an operation of a subgroup is committed");
  } else if (op.tag != side_tag) {
    hint_ = hint_ || hint;
  }
  over(op);
}

void User::failed(OpKey op, const Status&) { over(op); }

// Its number is free again, and the others will still use it.
void User::withdrawn(OpKey op) {
  if (op.tag == side_tag) return over(op);
  peer_.after(std::chrono::milliseconds(5), [this, op] {
    --open_;
    posting_ = true;
    if (!is_subgroup(op.group)) {
      post(op.tag);
    } else {
      PYCCL_MARK("an operation of a subgroup is called again");
      protocol::Call call = std::move(of_subgroups_.extract(op).mapped());
      ++open_;
      if (!post(std::move(call))) --open_;
    }
    posting_ = false;
    if (open_ == 0) batch_over();
  });
}

void User::over(OpKey op) {
  if (op.tag == side_tag) {
    --side_open_;
    const auto pause = world_.swarm.think * 5 + std::chrono::seconds(1);
    return peer_.after(pause, [this] { post_side(); });
  }
  of_subgroups_.erase(op);
  if (--open_ == 0 && !posting_) batch_over();
}

void User::batch_over() {
  const std::uint64_t every =
      world_.swarm.update_every * static_cast<std::uint64_t>(world_.swarm.depth);
  const bool scheduled = every > 0 && next_seq_ % every == 0;
  if ((hint_ || scheduled) && update()) return;
  think();
}

bool User::update() {
  const int number = ++updates_;
  if (!peer_.update(world_.swarm.deadline)) {
    ++updates_;
    return false;
  }
  if (world_.faults_on && world_.users.chance(world_.swarm.update_cancel_percent, 100)) {
    const auto delay = std::chrono::milliseconds(world_.users.below(1500));
    peer_.after(delay, [this, number] {
      if (updates_ == number) peer_.cancel_update();
    });
  }
  return true;
}

void User::update_finished(const Status&) {
  ++updates_;
  think();
}

}  // namespace pyccl::sim
