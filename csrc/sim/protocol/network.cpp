// Connections, dialling, and what can stand in the way.
#include "sim/protocol/network.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace pyccl::sim {
namespace {

constexpr Duration user_timeout = 4s;

}  // namespace

Connection::Connection(Network& network, MachineId dialler, MachineId acceptor)
    : network_(network) {
  ends_[0].machine = dialler;
  ends_[1].machine = acceptor;
}

void Connection::attach(int end, ConnectionEnd callbacks) {
  ends_[end].callbacks = std::move(callbacks);
  // What came before anybody listened.
  network_.clock().after(Duration(0), [self = shared_from_this(), end] { self->pump(end); });
}

std::shared_ptr<bool> Connection::send(int from_end, PayloadPointer payload) {
  auto arrived = std::make_shared<bool>(false);
  End& to = ends_[1 - from_end];
  if (!ends_[from_end].open || to.cut) return arrived;
  const Time due = std::max(network_.clock().now() + network_.latency(), to.last_due);
  to.last_due = due;
  to.incoming.push_back({due, std::move(payload), arrived});
  if (!to.pumping) pump(1 - from_end);
  return arrived;
}

// Delivers what is due, and comes back for the rest. A blocked direction waits for unblock().
void Connection::pump(int to_end) {
  End& to = ends_[to_end];
  to.pumping = false;
  const MachineId from_machine = ends_[1 - to_end].machine;
  while (!to.incoming.empty() && to.open && !to.cut && to.callbacks.receive) {
    InFlight& next = to.incoming.front();
    if (network_.blocked(from_machine, to.machine)) return;
    if (const Time due = std::max(next.due, to.stalled_until); due > network_.clock().now()) {
      to.pumping = true;
      network_.clock().at(due, [self = shared_from_this(), to_end] { self->pump(to_end); });
      return;
    }
    if (network_.holds && next.payload && network_.holds(from_machine, to.machine, *next.payload)) {
      if (fifo_only) return;
      network_.set_aside(shared_from_this(), 1 - to_end, next.payload);
      to.incoming.pop_front();
      continue;
    }
    const InFlight item = std::move(next);
    to.incoming.pop_front();
    if (!item.payload) {
      notice_broken(to_end, Duration(0));
      return;
    }
    *item.arrived = true;
    to.callbacks.receive(item.payload);
  }
}

void Connection::notice_broken(int end, Duration delay) {
  ends_[end].cut = true;
  network_.clock().after(delay, [self = shared_from_this(), end] {
    End& one = self->ends_[end];
    if (!one.open) return;
    one.open = false;
    if (one.callbacks.broken) one.callbacks.broken();
  });
}

void Connection::close(int end) {
  if (!ends_[end].open) return;
  ends_[end].open = false;
  End& other = ends_[1 - end];
  if (other.cut) return;
  const Time due = std::max(network_.clock().now() + network_.latency(), other.last_due);
  other.last_due = due;
  other.incoming.push_back({due, nullptr, nullptr});
  if (!other.pumping) pump(1 - end);
}

void Connection::abort(int end, bool tail_lost, Duration silence) {
  if (!ends_[end].open) return;
  if (!tail_lost) return close(end);
  ends_[end].open = false;
  if (!ends_[1 - end].cut) notice_broken(1 - end, silence);
}

void Connection::reset(Duration notice_dialler, Duration notice_acceptor) {
  if (!ends_[0].cut) notice_broken(0, notice_dialler);
  if (!ends_[1].cut) notice_broken(1, notice_acceptor);
}

Network::Network(Clock& clock, Prng prng, const Swarm& swarm)
    : clock_(clock), prng_(std::move(prng)), swarm_(swarm) {}

Duration Network::latency() {
  Duration delay = swarm_.latency;
  delay += delay * static_cast<std::int64_t>(prng_.below(100)) / 100;
  if (swarm_.tail_percent > 0 && prng_.chance(swarm_.tail_percent, 100)) {
    delay += Duration(static_cast<std::int64_t>(
        prng_.below(static_cast<std::uint64_t>(swarm_.tail.count()) + 1)));
  }
  return delay;
}

Network::DialResult Network::result_of(MachineId from, MachineId to) const {
  const auto found = listeners.find(to);
  if (found == listeners.end() || !found->second.machine_up) return DialResult::unreachable;
  if (blocked(from, to) || blocked(to, from)) return DialResult::unreachable;
  return found->second.listening ? DialResult::connected : DialResult::refused;
}

void Network::dial(MachineId from, PeerId dialler, MachineId to, PeerId wanted, Dialled done) {
  clock_.after(latency() + latency(), [=, this] {
    const DialResult result = result_of(from, to);
    if (result == DialResult::unreachable) {
      clock_.after(std::chrono::seconds(1), [=] { done(result, nullptr); });
      return;
    }
    if (result == DialResult::connected) {
      auto connection = std::make_shared<Connection>(*this, from, to);
      if (listeners.at(to).accept(connection, dialler, wanted)) {
        remember(connection);
        return done(result, connection);
      }
    }
    done(DialResult::refused, nullptr);
  });
}

void Network::probe(MachineId from, MachineId to, std::function<void(DialResult)> done) {
  clock_.after(latency() + latency(), [=, this] {
    const DialResult result = result_of(from, to);
    const Duration wait = result == DialResult::unreachable ? Duration(1s) : Duration(0);
    clock_.after(wait, [=] { done(result); });
  });
}

void Network::block(MachineId from, MachineId to) {
  Block& block = blocks_[{from, to}];
  if (++block.count > 1) return;
  block.ordinal = ++blocks_made_;
  clock_.after(user_timeout,
               [=, this, ordinal = block.ordinal] { give_up_lanes(from, to, ordinal); });
}

// Transports end a data connection on which nothing is acknowledged for a while.
void Network::give_up_lanes(MachineId from, MachineId to, std::uint64_t block) {
  const auto found = blocks_.find({from, to});
  if (found == blocks_.end() || found->second.ordinal != block) return;
  for (const auto& connection : connections()) {
    const bool there = connection->machine(0) == from && connection->machine(1) == to;
    const bool back = connection->machine(0) == to && connection->machine(1) == from;
    if (!connection->fifo_only && (there || back)) connection->reset(latency(), latency());
  }
}

void Network::unblock(MachineId from, MachineId to) {
  const auto found = blocks_.find({from, to});
  if (found == blocks_.end() || --found->second.count > 0) return;
  blocks_.erase(found);
  for (const auto& connection : connections()) {
    for (int end : {0, 1}) {
      if (connection->machine(end) != to || connection->machine(1 - end) != from) continue;
      if (prng_.chance(1, 2)) {
        connection->stall(end, clock_.now() + std::chrono::milliseconds(prng_.below(2000)));
      }
      connection->pump(end);
    }
  }
}

void Network::block_for(MachineId from, MachineId to, Duration time) {
  block(from, to);
  clock_.after(time, [=, this] { unblock(from, to); });
}

void Network::heal() {
  blocks_.clear();
  pump_all();
}

void Network::pump_all() {
  for (const auto& connection : connections()) {
    connection->pump(0);
    connection->pump(1);
  }
}

void Network::remember(const std::shared_ptr<Connection>& connection) {
  connections_.push_back(connection);
}

std::vector<std::shared_ptr<Connection>> Network::connections() {
  std::vector<std::shared_ptr<Connection>> living;
  for (const auto& weak : connections_) {
    auto connection = weak.lock();
    if (connection && (connection->is_open(0) || connection->is_open(1))) {
      living.push_back(std::move(connection));
    }
  }
  connections_.assign(living.begin(), living.end());
  return living;
}

void Network::set_aside(std::shared_ptr<Connection> connection, int from_end,
                        PayloadPointer payload) {
  held_.push_back({std::move(connection), from_end, std::move(payload)});
}

void Network::release() {
  for (auto& held : std::exchange(held_, {})) held.connection->send(held.from_end, held.payload);
  pump_all();
}

}  // namespace pyccl::sim
