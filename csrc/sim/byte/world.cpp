// What the nodes of the byte world share.
#include "sim/byte/world.hpp"

#include <utility>

namespace pyccl::sim {

namespace {

constexpr std::uint64_t events_max = 20'000'000;

std::uint64_t mixed(std::uint64_t seed, std::uint64_t stream) {
  Prng prng(seed * 0x9e3779b97f4a7c15ull + stream);
  return prng.next();
}

}  // namespace

ByteWorld::ByteWorld(std::uint64_t its_seed, const ByteSwarm& drawn, Trace::Text text)
    : seed(its_seed),
      swarm(drawn),
      trace(text),
      identities(mixed(seed, 1)),
      faults(mixed(seed, 2)),
      users(mixed(seed, 3)),
      crash_points(mixed(seed, 4)),
      network(clock, mixed(seed, 5), drawn.network),
      checks(*this),
      coordinator(*this) {}

// Events that never came may still hold peers; what those hold must not outlive the network.
ByteWorld::~ByteWorld() {
  for (const auto& [machine, peer] : peers_) peer->abandon();
}

std::string ByteWorld::host_of(int machine) const { return "10.0.0." + std::to_string(machine); }

std::shared_ptr<BytePeer> ByteWorld::spawn(int machine) {
  const PeerId id{identities.next() | 1};
  const int group = machine % swarm.groups;
  auto peer = std::make_shared<BytePeer>(*this, machine, id,
                                         group == 0 ? "default" : "shard" + std::to_string(group));
  peers_[machine] = peer;
  peer->start();
  return peer;
}

std::shared_ptr<BytePeer> ByteWorld::peer_at(int machine) const {
  const auto found = peers_.find(machine);
  return found == peers_.end() || !found->second->alive() ? nullptr : found->second;
}

std::vector<std::shared_ptr<BytePeer>> ByteWorld::living() const {
  std::vector<std::shared_ptr<BytePeer>> peers;
  for (const auto& [machine, peer] : peers_) {
    if (peer->alive()) peers.push_back(peer);
  }
  return peers;
}

void ByteWorld::restart_coordinator_later() {
  const std::uint64_t most = faults.chance(1, 5) ? 14'000 : 2'000;
  const auto away = std::chrono::milliseconds(static_cast<std::int64_t>(faults.between(10, most)));
  clock.after(away, [this] {
    if (!coordinator.up()) coordinator.start();
  });
}

void ByteWorld::fail(std::string invariant, std::string text) {
  if (failure_) return;
  failure_ = Failure{clock.now(), std::move(invariant), std::move(text)};
}

void ByteWorld::run_until(Time end) {
  // Shared, since the event may outlive this frame if something fails first.
  const auto reached = std::make_shared<bool>(false);
  clock.at(end, [reached] { *reached = true; });
  while (running() && !*reached && clock.step()) {
    trace.fold(static_cast<std::uint64_t>(clock.now().nanoseconds));
    if (++events_ == events_max) fail("livelock", "more events than any sound run has");
  }
}

}  // namespace pyccl::sim
