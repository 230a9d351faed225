// A step: post what is missing in any order of tags, wait for all of it, update() if joiners wait,
// think.
#include "sim/byte/user.hpp"

#include <algorithm>
#include <vector>

#include "sim/byte/world.hpp"

namespace pyccl::sim {

namespace {

constexpr Duration retry_pause = 20ms;  // after a refused or withdrawn call

Duration milliseconds(std::uint64_t count) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(count));
}

}  // namespace

void ByteUser::installed(const protocol::View& view) {
  for (const protocol::NextSequence& next : view.next_sequences) {
    if (next.group == group_id(peer_.group())) {
      next_[next.tag] = std::max(next_[next.tag], next.seq);
    }
  }
  if (begun_) return;
  begun_ = true;
  think();
}

void ByteUser::think() {
  const auto most = static_cast<std::uint64_t>(world_.swarm.think.count());
  Duration pause(static_cast<std::int64_t>(world_.users.below(most) + 1));
  if (world_.faults_on && world_.users.chance(world_.swarm.late_percent, 100)) {
    pause += milliseconds(world_.users.between(500, 12'000));
  }
  peer_.after(pause, [this] { begin_step(); });
}

std::uint32_t ByteUser::step_of_numbers() const {
  const auto depth = static_cast<std::uint32_t>(world_.swarm.depth);
  std::uint32_t least = 0xffffffff;
  for (int tag = 0; tag < world_.swarm.tags; ++tag) {
    const auto found = next_.find(static_cast<std::uint32_t>(tag));
    least = std::min(least, found == next_.end() ? 0 : found->second / depth);
  }
  return least;
}

void ByteUser::begin_step() {
  if (peer_.ended()) return;
  step_ = step_of_numbers();
  if (step_ >= stop_) {
    idle_ = true;
    return;
  }
  if (world_.faults_on && world_.users.chance(world_.swarm.leave_permille, 1000)) {
    return peer_.leave(5s);
  }
  hint_ = false;
  committed_ = false;
  in_step_ = true;
  go_on();
}

void ByteUser::go_on() {
  if (peer_.ended()) return;
  const std::uint32_t target = (step_ + 1) * static_cast<std::uint32_t>(world_.swarm.depth);
  std::vector<std::uint32_t> tags;
  for (int tag = 0; tag < world_.swarm.tags; ++tag) {
    const auto number = static_cast<std::uint32_t>(tag);
    for (std::uint32_t seq = next_[number]; seq < target; ++seq) tags.push_back(number);
  }
  if (tags.empty() && peer_.open().empty()) return step_over();
  for (std::size_t i = tags.size(); i > 1; --i) {
    std::swap(tags[i - 1], tags[world_.users.below(i)]);
  }
  for (const std::uint32_t tag : tags) {
    if (next_[tag] < target) post(tag);
  }
}

void ByteUser::post(std::uint32_t tag) {
  const bool wild = world_.faults_on;
  Duration limit = world_.swarm.deadline;
  if (wild && world_.users.chance(world_.swarm.short_deadline_percent, 100)) {
    limit = milliseconds(world_.users.between(1, 800));
  }
  const OpKey guess{group_id(peer_.group()), tag, next_[tag]};
  CallShape shape = shape_of(world_.swarm, world_.seed, guess);
  if (wild && !shape.barrier() && world_.users.chance(world_.swarm.mismatch_permille, 1000)) {
    shape.arrays.front().count += 1;
  }
  const Posting posting = peer_.post(tag, shape, limit);
  next_[tag] = posting.key ? posting.key->seq + 1 : guess.seq + 1;
  if (wild && world_.users.chance(world_.swarm.cancel_permille, 1000)) {
    const engine::Ticket ticket = posting.ticket;
    peer_.after(milliseconds(world_.users.below(400)), [this, ticket] { peer_.cancel(ticket); });
  }
}

void ByteUser::finished(const Posting& posting, const engine::Finished& result) {
  std::uint32_t& next = next_[posting.tag];
  if (!posting.key) {
    if (next > 0) --next;  // it was none
  } else {
    next = std::max(next, posting.key->seq + 1);
  }
  if (result.status.ok()) {
    ++ends;
    committed_ = true;
    hint_ = hint_ || result.info.peers_pending;
  } else if (posting.key && result.status.code() == Code::invalid_argument) {
    ++ends;
  } else if (posting.key && result.status.code() == Code::cancelled && posting.cancelled) {
    // If nobody else knew of it, its number is free again and the others will use it.
    next = std::min(next, posting.key->seq);
  }
  if (!peer_.open().empty()) return;
  peer_.after(result.status.ok() ? 1us : retry_pause, [this] {
    if (in_step_ && peer_.open().empty()) go_on();
  });
}

void ByteUser::step_over() {
  in_step_ = false;
  const std::uint64_t every = world_.swarm.update_every;
  // Where all operations fail there is no hint either; newcomers may be what is missing.
  if (hint_ || !committed_ || (every > 0 && step_ % every == 0)) return update();
  think();
}

void ByteUser::update() {
  const engine::Ticket ticket = peer_.update(world_.swarm.deadline);
  if (!world_.faults_on || !world_.users.chance(world_.swarm.update_cancel_percent, 100)) return;
  peer_.after(milliseconds(world_.users.below(1500)), [this, ticket] { peer_.cancel(ticket); });
}

void ByteUser::update_finished(const Status&) { think(); }

}  // namespace pyccl::sim
