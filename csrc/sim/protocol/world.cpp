// The parts that all nodes of the world share.
#include "sim/protocol/world.hpp"

#include <utility>

#include "base/assert.hpp"

namespace pyccl::sim {

namespace {

constexpr std::uint64_t events_max = 2'000'000;

std::uint64_t mixed(std::uint64_t seed, std::uint64_t stream) {
  Prng prng(seed * 0x9e3779b97f4a7c15ull + stream);
  return prng.next();
}

}  // namespace

std::string name_of(Code code) {
  switch (code) {
    case Code::ok: return "ok";
    case Code::invalid_argument: return "invalid_argument";
    case Code::mismatch: return "mismatch";
    case Code::peer_lost: return "peer_lost";
    case Code::timeout: return "timeout";
    case Code::coordinator_unavailable: return "coordinator_unavailable";
    case Code::not_admitted: return "not_admitted";
    case Code::evicted: return "evicted";
    case Code::cancelled: return "cancelled";
    case Code::closed: return "closed";
    default: return "code_" + std::to_string(static_cast<int>(code));
  }
}

World::World(std::uint64_t seed, const Swarm& drawn, Trace::Text text)
    : swarm(drawn),
      trace(text),
      identities(mixed(seed, 1)),
      faults(mixed(seed, 2)),
      users(mixed(seed, 3)),
      crash_points(mixed(seed, 4)),
      network(clock, Prng(mixed(seed, 5)), swarm),
      checks(*this),
      coordinator(*this),
      groups(drawn.groups) {
  for (MachineId machine = 1; machine <= swarm.machines; ++machine) {
    network.listeners[machine] = {true, false, nullptr};
  }
}

World::~World() = default;

std::string World::group_of(MachineId machine) const {
  const int group = machine % groups;
  return group == 0 ? "default" : "shard" + std::to_string(group);
}

std::shared_ptr<PeerNode> World::spawn(MachineId machine, const std::string& group) {
  const PeerId id{identities.next() | 1};
  auto peer = std::make_shared<PeerNode>(*this, machine, id, group);
  names_[id] = peer->name();
  peers_[machine] = peer;
  const std::weak_ptr<PeerNode> weak = peer;
  network.listeners[machine] = {
      true, true, [weak](const std::shared_ptr<Connection>& connection, PeerId from, PeerId to) {
        auto one = weak.lock();
        return one && one->accept_lane(connection, from, to);
      }};
  peer->start();
  return peer;
}

std::shared_ptr<PeerNode> World::peer_at(MachineId machine) const {
  const auto found = peers_.find(machine);
  return found == peers_.end() || !found->second->alive() ? nullptr : found->second;
}

std::vector<std::shared_ptr<PeerNode>> World::living() const {
  std::vector<std::shared_ptr<PeerNode>> peers;
  for (const auto& [machine, peer] : peers_) {
    if (peer->alive()) peers.push_back(peer);
  }
  return peers;
}

void World::crash_coordinator_for_a_while() {
  coordinator.crash(faults.chance(1, 4));
  const auto away =
      std::chrono::milliseconds(faults.between(10, faults.chance(1, 5) ? 14000 : 2000));
  clock.after(away, [this] { coordinator.start(); });
}

void World::fail(std::string invariant, std::string text) {
  if (failure_) return;
  failure_ = Failure{clock.now(), std::move(invariant), std::move(text)};
}

void World::run_until(Time end) {
  // Shared, since the event may outlive this frame if something fails first.
  const auto reached = std::make_shared<bool>(false);
  clock.at(end, [reached] { *reached = true; });
  while (running() && !*reached && clock.step()) {
    if (++events_ == events_max) fail("livelock", "more events than any sound run has");
  }
}

std::string World::short_name(PeerId peer) const {
  const auto found = names_.find(peer);
  return found == names_.end() ? to_string(peer) : found->second;
}

void World::say_message(const std::string& where, PeerId from, const protocol::Message& message) {
  trace.fold(static_cast<std::uint64_t>(clock.now().nanoseconds));
  trace.fold(from.value + message.index());
  if (trace.wants_text()) {
    trace.line(clock.now(), where + (from ? short_name(from) + ": " : ": ") + to_string(message));
  }
}

PayloadPointer World::payload(const protocol::Message& message) const {
  if (!swarm.check_codec) return std::make_shared<const Payload>(message);
  auto decoded = protocol::decode(protocol::encode(message));
  PYCCL_ASSERT(decoded.ok());
  return std::make_shared<const Payload>(decoded.take());
}

std::uint64_t World::value_of(PeerId peer, OpId op, std::uint32_t piece) const {
  std::uint64_t value = peer.value;
  for (std::uint64_t part : {std::uint64_t{op.epoch.incarnation}, std::uint64_t{op.epoch.counter},
                             std::uint64_t{op.key.group.value}, std::uint64_t{op.key.tag},
                             std::uint64_t{op.key.seq}, std::uint64_t{piece}}) {
    value = (value ^ part) * 0x9e3779b97f4a7c15ull;
    value ^= value >> 31;
  }
  return value;
}

double World::weight_of(PeerId peer, std::uint32_t tag) const {
  return static_cast<double>(peer.value % 7 + tag % 3);
}

Duration World::half_open_time() { return std::chrono::milliseconds(faults.between(500, 6000)); }

Duration World::work_time() {
  const auto most = static_cast<std::uint64_t>(swarm.work.count()) + 1;
  return Duration(static_cast<std::int64_t>(network.prng().below(most)));
}

}  // namespace pyccl::sim
