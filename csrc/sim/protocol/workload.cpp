// Draws come from a stream of their own for each subgroup, the same at all its members.
#include "sim/protocol/workload.hpp"

#include <algorithm>
#include <string>

#include "base/prng.hpp"

namespace pyccl::sim {

using namespace protocol;

namespace {

constexpr std::uint32_t uneven_tag = 1;

// In long runs most numbers have none, or there would be too many.
constexpr std::uint32_t early = 512;
constexpr std::uint32_t late_windows = 64;

std::uint64_t amount(PeerId giver, PeerId taker) { return (giver.value * 3 + taker.value) % 5; }

void make_uneven(Call& call, PeerId self, const std::vector<PeerId>& ranks) {
  call.descriptor.kind = Collective::all_to_all;
  call.descriptor.parts.front().count = 0;
  call.descriptor.uneven = true;
  for (PeerId peer : ranks) {
    call.gives.push_back(amount(self, peer));
    call.takes.push_back(amount(peer, self));
  }
}

void make_rooted(Call& call, const std::vector<PeerId>& ranks, std::uint64_t any) {
  const std::size_t root = any % ranks.size();
  call.descriptor.kind = Collective::broadcast;
  call.descriptor.root = static_cast<std::int32_t>(root);
  call.descriptor.root_peer = ranks[root];
}

// Disjoint pairs, as in gossip; or some; or all, in another order.
std::vector<PeerId> draw_members(Prng& prng, std::vector<PeerId> ranks, PeerId self) {
  const auto shift = static_cast<std::ptrdiff_t>(prng.below(ranks.size()));
  std::ranges::rotate(ranks, ranks.begin() + shift);
  const std::uint64_t how = prng.below(3);
  if (how == 0) {
    const auto place = static_cast<std::size_t>(std::ranges::find(ranks, self) - ranks.begin());
    const std::size_t first = place / 2 * 2;
    if (first + 1 == ranks.size()) return {self};
    return {ranks[first], ranks[first + 1]};
  }
  if (how == 1) std::erase_if(ranks, [&](PeerId) { return prng.chance(1, 2); });
  return ranks;
}

}  // namespace

Call group_call(const Calling& caller, std::uint32_t tag) {
  const Swarm& swarm = caller.swarm;
  const View& view = caller.member.view();
  const std::vector<PeerId> ranks = view.group_members(caller.group);
  Call call;
  call.tag = tag;
  call.descriptor.parts = {{PYCCL_F32, 1000 + tag}};
  const bool raise = swarm.raise_percent > (tag % 2 == 1 ? 0 : 40);
  if (raise) call.descriptor.on_loss = OnLoss::raise;
  if (swarm.uneven && tag == uneven_tag) {
    make_uneven(call, caller.member.peer(), ranks);
  } else if (swarm.rooted && tag % 2 == 0) {
    make_rooted(call, ranks, view.epoch.counter);
  }
  return call;
}

std::vector<Call> subgroup_calls(const Calling& caller, std::uint32_t seq) {
  std::vector<Call> calls;
  const std::uint32_t turn = seq / subgroup_window;
  if (seq > early && turn % late_windows != 0) return calls;
  const std::vector<PeerId> ranks = caller.member.view().group_members(caller.group);
  const PeerId self = caller.member.peer();
  for (int i = 0; i < caller.swarm.subgroups; ++i) {
    Prng prng(turn * 8 + static_cast<std::uint64_t>(i));
    Call call;
    call.members = draw_members(prng, ranks, self);
    if (std::ranges::find(call.members, self) == call.members.end()) continue;
    const std::string name = std::to_string(turn) + "." + std::to_string(i);
    call.group = subgroup_id(caller.group, call.members, name);
    call.tag = turn % 3;
    call.descriptor.parts = {{PYCCL_F32, 100}};
    const std::uint64_t what = prng.below(4);
    if (what == 0) make_uneven(call, self, call.members);
    if (what == 1) make_rooted(call, call.members, seq);
    calls.push_back(std::move(call));
  }
  return calls;
}

}  // namespace pyccl::sim
