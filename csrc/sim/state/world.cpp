// See world.hpp.
#include "sim/state/world.hpp"

#include <algorithm>
#include <utility>

namespace pyccl::sim {
namespace {

// Many times what the longest sync needs.
constexpr std::uint64_t events_max = 100'000;

std::vector<engine::Tensor> tensors_of(const StateSwarm& swarm, bool unlike) {
  std::vector<engine::Tensor> tensors;
  for (std::size_t i = 0; i < swarm.tensors.size(); ++i) {
    engine::Tensor tensor;
    tensor.name = "t" + std::to_string(i);
    tensor.dtype = "u8";
    tensor.shape = {swarm.tensors[i]};
    tensor.bytes = swarm.tensors[i];
    tensors.push_back(std::move(tensor));
  }
  if (unlike && !tensors.empty()) tensors.back().dtype = "i8";
  if (unlike && tensors.empty()) tensors.push_back({"own", "u8", {0}, nullptr, 0});
  return tensors;
}

}  // namespace

StateWorld::StateWorld(std::uint64_t seed, const StateSwarm& drawn, Trace::Text text)
    : swarm(drawn),
      trace(text),
      pace(Prng(seed ^ 0x7061636500000000ull)),
      layer(Prng(seed ^ 0x6c61796572000000ull)),
      faults(Prng(seed ^ 0x6661756c74000000ull)),
      contents(Prng(seed ^ 0x636f6e74656e7400ull)),
      operations(*this),
      checks(*this) {}

void StateWorld::later(std::uint64_t factor, Clock::Action action) {
  const std::uint64_t us = pace.between(1, swarm.hop_us * factor);
  clock.after(std::chrono::microseconds(static_cast<std::int64_t>(us)), std::move(action));
}

void StateWorld::moment() {
  for (std::size_t i = 0; i < plans_.size();) {
    if (--plans_[i].moments > 0) {
      ++i;
      continue;
    }
    // Not in the middle of somebody's step.
    clock.after(Duration(0), std::move(plans_[i].action));
    plans_.erase(plans_.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

void StateWorld::plan(std::uint64_t moments, std::function<void()> action) {
  plans_.push_back({std::max<std::uint64_t>(moments, 1), std::move(action)});
}

StateMember& StateWorld::spawn(bool unlike) {
  const PeerId peer{members_.size() + 1};
  const std::uint64_t slowness = pace.between(1, swarm.slowness);
  members_.push_back(std::make_unique<StateMember>(*this, peer, tensors_of(swarm, unlike),
                                                   swarm.strict, slowness));
  return *members_.back();
}

std::vector<StateMember*> StateWorld::living() const {
  std::vector<StateMember*> living;
  for (const auto& member : members_) {
    if (member->alive()) living.push_back(member.get());
  }
  return living;
}

void StateWorld::kill(StateMember& member) {
  say(member.name() + " dies");
  member.die();
  operations.died(member);
}

void StateWorld::fail(std::string invariant, std::string text) {
  if (failure_) return;
  say(invariant + " does not hold: " + text);
  failure_ = Failure{clock.now(), std::move(invariant), std::move(text)};
}

void StateWorld::run_out() {
  const std::uint64_t first = events_;
  while (running() && clock.step()) {
    trace.fold(static_cast<std::uint64_t>(clock.now().nanoseconds));
    if (++events_ - first > events_max) fail("liveness", "the sync goes on for ever");
  }
}

RunResult StateWorld::result() const {
  return {failure_, trace.hash(), clock.now(), events_, operations.committed(), operations.failed(),
          views};
}

}  // namespace pyccl::sim
