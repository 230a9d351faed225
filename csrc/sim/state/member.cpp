// See member.hpp.
#include "sim/state/member.hpp"

#include <cstring>

#include "base/assert.hpp"
#include "sim/state/world.hpp"

namespace pyccl::sim {

using engine::StateSync;

StateMember::StateMember(StateWorld& world, PeerId peer, std::vector<engine::Tensor> tensors,
                         bool strict, std::uint64_t slowness)
    : world_(world), peer_(peer), name_("p" + std::to_string(peer.value)), slowness_(slowness) {
  for (engine::Tensor& tensor : tensors) {
    memory_.emplace_back(tensor.bytes);
    tensor.memory = memory_.back().data();
  }
  auto made = engine::SharedState::make(std::move(tensors), strict, world.swarm.block_bytes);
  PYCCL_ASSERT(made.ok());
  state_ = std::make_unique<engine::SharedState>(made.take());
}

Bytes StateMember::bits() const {
  Bytes all;
  for (std::size_t i = 0; i < state_->block_count(); ++i) {
    const ByteView block = state_->block(i);
    all.insert(all.end(), block.begin(), block.end());
  }
  return all;
}

void StateMember::write(const Bytes& bits) {
  std::size_t at = 0;
  for (std::size_t i = 0; i < state_->block_count(); ++i) {
    const MutableByteView block = state_->block(i);
    std::memcpy(block.data(), bits.data() + at, block.size());
    at += block.size();
  }
}

void StateMember::begin_sync(const engine::SyncOptions& options) {
  options_ = options;
  sync_ = std::make_unique<StateSync>(*state_, options, peer_);
  first_number_ = first_open_ = next_number;
  digests_ = 0;
  wake();
}

void StateMember::wake() {
  if (awake_ || !sync_) return;
  awake_ = true;
  world_.later(slowness_, [this] {
    awake_ = false;
    step();
  });
}

void StateMember::step() {
  if (!alive_ || !sync_ || !act()) return;
  world_.checks.acted(*this);
  if (world_.running()) wake();
}

// One thing at a time, so that others may come between any two of them. False: there is nothing to
// do.
bool StateMember::act() {
  const bool has_result = results_.contains(first_open_);
  switch (sync_->need()) {
    case StateSync::Need::digest: digest(); return true;
    case StateSync::Need::post:
      if (has_result && world_.pace.chance(1, 2)) {
        take_result();
      } else {
        post();
      }
      return true;
    case StateSync::Need::wait:
      if (has_result) take_result();
      return has_result;
    default: return false;
  }
}

void StateMember::digest() {
  state_->digest_blocks(0, state_->block_count());
  world_.checks.digested(*this);
  ++digests_;
  sync_->digested();
  world_.moment();
}

void StateMember::post() {
  StateSync::Place place{view_.peers, {}};
  // Some ways are known, some are not, and of none is it known alike at both ends.
  for (std::size_t i = 0; i < view_.peers.size(); ++i) {
    const auto rate = static_cast<std::uint32_t>(world_.pace.between(1, 2000));
    place.mb_per_s.push_back(world_.pace.chance(1, 4) ? 0 : rate);
  }
  // Its own affair, and no other member's.
  if (!sync_->samples().blocks.empty()) sync_->compress(world_.pace.chance(1, 2));
  const engine::Request request = sync_->next_request(place);
  world_.checks.posts(*this, request);
  world_.operations.post(*this, request);
  world_.moment();
}

void StateMember::take_result() {
  const auto [status, bytes] = std::move(results_.extract(first_open_++).mapped());
  engine::OperationInfo info;
  info.bytes_sent = info.bytes_received = bytes;
  world_.checks.ended(*this, status, bytes);
  sync_->ended(status, info);
  world_.moment();
}

void StateMember::ended(std::uint64_t number, Status status, std::uint64_t bytes) {
  if (!alive_) return;
  results_.emplace(number, std::pair(std::move(status), bytes));
  wake();
}

void StateMember::lie(Prng& prng, bool rereads) {
  const std::uint64_t count = prng.between(1, 3);
  for (std::uint64_t i = 0; i < count && state_->block_count() > 0; ++i) {
    const std::size_t index = prng.below(state_->block_count());
    const MutableByteView block = state_->block(index);
    block[prng.below(block.size())] ^= static_cast<std::byte>(prng.between(1, 255));
    world_.checks.lied(*this, index);
    world_.say(name_ + " changes block " + std::to_string(index));
  }
  // Later its machine would take the new digests for what has come.
  if (!rereads || next_number > first_number_ + 1) return;
  state_->digest_blocks(0, state_->block_count());
  world_.checks.digested(*this);
  world_.say(name_ + " looks again what it has, unasked");
}

}  // namespace pyccl::sim
