// See run.hpp.
#include "sim/state/run.hpp"

#include <algorithm>
#include <string>

#include "sim/state/swarm.hpp"
#include "sim/state/world.hpp"

namespace pyccl::sim {
namespace {

using protocol::Strategy;

class Run {
 public:
  Run(std::uint64_t seed, const StateSwarm& swarm, Trace::Text text)
      : world_(seed, swarm, text), seed_(seed) {}

  RunResult run() {
    revision_ = prng().between(1, 3);
    for (int i = 0; i < swarm().members; ++i) {
      StateMember& member = world_.spawn(swarm().unlike_schema && i == swarm().members / 2);
      first_state(member, i);
    }
    for (int round = 0; round < swarm().rounds && world_.running(); ++round) {
      if (world_.living().empty()) break;
      if (round > 0) work();
      sync();
    }
    return world_.result();
  }

 private:
  const StateSwarm& swarm() const { return world_.swarm; }
  Prng& prng() { return world_.contents; }

  // What training makes of it: each revision changes some of the blocks of the one before. Variants
  // of a revision differ in its last step.
  Bytes content_of(const StateMember& member, std::uint64_t revision, std::uint64_t variant) const {
    const auto& blocks = member.state().block_bytes();
    Bytes bits(member.state().bytes());
    for (std::uint64_t step = 0; step <= revision; ++step) {
      Prng draws(seed_ * 1009 + step * 31 + (step == revision ? variant : 0));
      std::size_t at = 0;
      for (const std::uint32_t size : blocks) {
        const bool changes = step == 0 || draws.chance(1, 3);
        for (std::size_t i = at; changes && i < at + size; ++i) {
          bits[i] = static_cast<std::byte>(draws.next());
        }
        at += size;
      }
    }
    return bits;
  }

  void put(StateMember& member, std::uint64_t revision, std::uint64_t variant) {
    member.write(content_of(member, revision, variant));
    member.state().set_revision(revision);
  }

  void drift(StateMember& member) {
    if (member.state().block_count() == 0) return;
    const auto block = member.state().block(prng().below(member.state().block_count()));
    block[prng().below(block.size())] ^= std::byte{1};
  }

  void first_state(StateMember& member, int index) {
    const auto older = revision_ - prng().between(0, std::min<std::uint64_t>(revision_, 2));
    switch (swarm().contents) {
      case 0: return put(member, revision_, 0);
      case 1:
        put(member, revision_, 0);
        if (index == swarm().members / 3) drift(member);
        return;
      case 2: return put(member, older, 0);
      case 3: return put(member, older, prng().below(3));
      case 4: return put(member, revision_, prng().below(3));
      case 5: return put(member, index == 0 ? revision_ : 0, 0);
      default:
        put(member, revision_, 0);
        if (prng().chance(1, 2)) member.state().set_revision(older);
        return;
    }
  }

  void work() {
    const bool nobody_steps = prng().chance(1, 5);
    const std::uint64_t of_steps = prng().chance(1, 2) ? 100 : prng().between(20, 90);
    if (!nobody_steps) ++revision_;
    for (StateMember* member : world_.living()) {
      const bool steps = prng().below(100) < of_steps;
      const std::uint64_t what = prng().below(12);
      if (!member->state().whole() && what < 4) continue;  // leaves it as the sync has left it
      if (steps && !nobody_steps) put(*member, revision_, what == 0 ? 1 : 0);
      if (what == 1) drift(*member);
      if (what == 2) put(*member, revision_ + 1, prng().below(2));
      if (what == 3 && member->state().whole()) put(*member, 0, 0);
    }
    if (prng().chance(1, 3) && world_.living().size() < 8) {
      StateMember& newcomer = world_.spawn(swarm().unlike_schema && prng().chance(1, 4));
      newcomer.next_number = world_.living().front()->next_number;
      put(newcomer, 0, prng().below(3));
      world_.say(newcomer.name() + " joins");
    }
  }

  Strategy draw_strategy(std::size_t index) {
    const std::uint64_t drawn = world_.contents.below(100);
    switch (swarm().strategies) {
      case 0: return Strategy::popular;
      case 1:
        if (index == 0) return Strategy::send_only;
        return drawn < 50 ? Strategy::receive_only : Strategy::popular;
      default:
        if (drawn < 12) return Strategy::send_only;
        return drawn < 40 ? Strategy::receive_only : Strategy::popular;
    }
  }

  engine::SyncOptions draw_options(std::size_t index) {
    engine::SyncOptions options = swarm().options;
    options.strategy = draw_strategy(index);
    options.expect_next = swarm().strict;
    if (swarm().staging_varies) {
      options.staged_bytes_max = std::uint64_t{swarm().block_bytes} * prng().below(30);
    }
    return options;
  }

  // Small numbers are as likely as all large ones together.
  std::uint64_t draw_moment() {
    return world_.faults.below(std::uint64_t{2} << world_.faults.below(9));
  }

  // Anybody, or whose state will win in general.
  StateMember* somebody_or_newest() {
    const auto living = world_.living();
    if (living.empty()) return nullptr;
    if (world_.faults.chance(1, 2)) return living[world_.faults.below(living.size())];
    return *std::ranges::max_element(
        living, {}, [](const StateMember* member) { return member->state().revision(); });
  }

  void plan_faults() {
    for (int i = 0; i < swarm().deaths; ++i) {
      if (!world_.faults.chance(1, static_cast<std::uint64_t>(swarm().rounds))) continue;
      world_.plan(draw_moment(), [this] {
        if (StateMember* member = somebody_or_newest()) world_.kill(*member);
      });
    }
    for (int i = 0; i < swarm().liars; ++i) {
      const bool rereads = world_.faults.chance(swarm().reread_percent, 100);
      world_.plan(draw_moment(), [this, rereads] {
        StateMember* member = somebody_or_newest();
        if (member != nullptr && member->in_sync() && member->digested() && !member->over()) {
          member->lie(world_.faults, rereads);
        }
      });
    }
  }

  void sync() {
    const auto members = world_.living();
    world_.say("a sync of " + std::to_string(members.size()));
    world_.operations.gather(members);
    world_.operations.calm();
    world_.checks.round_begins();
    plan_faults();
    for (std::size_t i = 0; i < members.size(); ++i) {
      world_.later(20, [member = members[i], options = draw_options(i)] {
        if (member->alive()) member->begin_sync(options);
      });
    }
    world_.run_out();
    world_.forget_plans();
    if (world_.running()) world_.checks.round_over(world_.living().size() < members.size());
    for (StateMember* member : members) member->end_sync();
  }

  StateWorld world_;
  std::uint64_t seed_;
  std::uint64_t revision_ = 1;
};

}  // namespace

RunResult run_state_seed(std::uint64_t seed, Trace::Text text) {
  Prng prng(seed ^ 0x57a7e57a7e57a7eull);
  const StateSwarm swarm = draw_state_swarm(prng);
  return Run(seed, swarm, text).run();
}

}  // namespace pyccl::sim
