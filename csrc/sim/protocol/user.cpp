// One step: post a batch in any order of tags, wait for all of it, update() if joiners wait, think.
#include "sim/protocol/user.hpp"

#include <vector>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

constexpr std::uint32_t side_tag = 100;

}  // namespace

void User::installed(const protocol::View&) {
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
  const bool wild = world_.faults_on;
  Duration deadline = world_.swarm.deadline;
  if (wild && world_.users.chance(world_.swarm.short_deadline_percent, 100)) {
    deadline = std::chrono::milliseconds(world_.users.between(1, 800));
  }
  protocol::Descriptor descriptor = descriptor_of(tag);
  if (wild && world_.users.chance(world_.swarm.mismatch_permille, 1000)) {
    descriptor.parts.front().count += 1;
  }
  ++open_;
  const auto op = peer_.post(tag, descriptor, deadline);
  if (!op) {
    --open_;
    return;
  }
  if (tag == 0) next_seq_ = op->seq + 1;
  if (wild && world_.users.chance(world_.swarm.cancel_permille, 1000)) {
    const auto delay = std::chrono::milliseconds(world_.users.below(400));
    peer_.after(delay, [this, op] { peer_.cancel(*op); });
  }
}

// Another thread of the same program, which knows nothing of update().
void User::post_side() {
  if (idle_ || next_seq_ >= stop_) return;
  ++side_open_;
  if (!peer_.post(side_tag, descriptor_of(side_tag), world_.swarm.deadline)) --side_open_;
}

protocol::Descriptor User::descriptor_of(std::uint32_t tag) const {
  protocol::Descriptor descriptor;
  descriptor.parts = {{PYCCL_F32, 1000 + tag}};
  const bool raise = world_.swarm.raise_percent > (tag % 2 == 1 ? 0 : 40);
  if (raise) descriptor.on_loss = protocol::OnLoss::raise;
  return descriptor;
}

void User::committed(OpKey op, bool hint) {
  ++commits;
  if (op.tag != side_tag) hint_ = hint_ || hint;
  over(op);
}

void User::failed(OpKey op, const Status&) { over(op); }

// Its number is free again, and the others will still use it.
void User::withdrawn(OpKey op) {
  if (op.tag == side_tag) return over(op);
  const std::uint32_t tag = op.tag;
  peer_.after(std::chrono::milliseconds(5), [this, tag] {
    --open_;
    post(tag);
    if (open_ == 0 && !posting_) batch_over();
  });
}

void User::over(OpKey op) {
  if (op.tag == side_tag) {
    --side_open_;
    const auto pause = world_.swarm.think * 5 + std::chrono::seconds(1);
    return peer_.after(pause, [this] { post_side(); });
  }
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
