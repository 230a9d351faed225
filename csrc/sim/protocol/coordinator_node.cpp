// A host as the production one should be, and a crash wherever it hurts.
#include "sim/protocol/coordinator_node.hpp"

#include <cstdlib>
#include <utility>

#include "base/mark.hpp"
#include "sim/protocol/world.hpp"

namespace pyccl::sim {

using protocol::Coordinator;

void CoordinatorNode::start() {
  if (life_) return;
  life_ = std::make_shared<Life>();
  const RunId fresh{world_.identities.next() | 1};
  protocol::Timing timing = world_.timing;
  timing.heartbeat_limit = world_.swarm.heartbeat_limits[file_ ? file_->incarnation % 2 : 0];
  const protocol::CoordinatorOptions options{fresh, timing, world_.swarm.decisions_bytes};
  life_->machine.emplace(options, file_, world_.clock.now());
  world_.network.listeners[0] = {true, true,
                                 [this](const Line& line, PeerId, PeerId) { return accept(line); }};
  world_.say("coordinator starts, incarnation ", file_ ? file_->incarnation + 1 : 1);
  drain();
}

void CoordinatorNode::crash(bool machine_too) {
  if (!life_) return;
  world_.say("coordinator dies", machine_too ? " with its machine" : "");
  auto life = std::exchange(life_, nullptr);
  life->process.stop();
  world_.network.listeners[0] = {!machine_too, false, nullptr};
  Prng& prng = world_.network.prng();
  const auto drop = [&](const Line& line) {
    const bool lost = machine_too || prng.chance(1, 2);
    const Duration silence = machine_too ? world_.half_open_time() : world_.network.latency();
    line->abort(1, lost, silence);
  };
  for (const auto& [peer, line] : life->bound) drop(line);
  for (const auto& line : life->unbound) drop(line);
}

void CoordinatorNode::pause() {
  if (!life_ || life_->process.paused()) return;
  world_.say("coordinator stops");
  life_->process.pause();
}

void CoordinatorNode::resume() {
  if (!life_ || !life_->process.paused()) return;
  world_.say("coordinator goes on");
  life_->process.resume();
}

const protocol::View& CoordinatorNode::view() const {
  static const protocol::View none;
  if (life_) return life_->machine->view();
  return file_ ? file_->view : none;
}

void CoordinatorNode::replace_file(std::optional<protocol::CoordinatorState> file) {
  file_ = std::move(file);
  file_replaced_ = true;
}

bool CoordinatorNode::accept(const Line& line) {
  if (!life_) return false;
  life_->unbound.insert(line);
  const std::weak_ptr<Life> weak = life_;
  const std::weak_ptr<Connection> connection = line;
  ConnectionEnd end;
  end.receive = [this, weak, connection](const PayloadPointer& payload) {
    auto life = weak.lock();
    if (!life) return;
    life->process.run([this, weak, connection, payload] {
      auto one = connection.lock();
      if (one && weak.lock() == life_) receive(one, std::get<protocol::Message>(*payload));
    });
  };
  end.broken = [this, weak, connection] {
    auto life = weak.lock();
    if (!life) return;
    life->process.run([this, weak, connection] {
      auto one = connection.lock();
      if (one && weak.lock() == life_) line_broken(one);
    });
  };
  line->attach(1, std::move(end));
  return true;
}

void CoordinatorNode::receive(const Line& line, const protocol::Message& message) {
  if (!line->is_open(1)) return;
  PeerId from;
  if (life_->unbound.contains(line)) {
    if (const auto* hello = std::get_if<protocol::Hello>(&message)) from = hello->member.peer;
    if (const auto* again = std::get_if<protocol::Register>(&message)) from = again->peer;
    if (!from) return line->close(1);
    life_->unbound.erase(line);
    if (auto former = std::exchange(life_->bound[from], line)) former->close(1);
  } else {
    for (const auto& [peer, bound] : life_->bound) {
      if (bound == line) from = peer;
    }
    if (!from) return;
  }
  world_.say_message("coordinator <- ", from, message);
  life_->machine->receive(world_.clock.now(), from, completed(line, message));
  drain();
}

// Addresses are completed by what is known of the other end, which is not the same each time.
protocol::Message CoordinatorNode::completed(const Line& line, protocol::Message message) const {
  if (auto* hello = std::get_if<protocol::Hello>(&message)) {
    const std::string route = "/" + std::to_string(world_.routes[line->machine(0)]);
    for (std::string& address : hello->member.addresses) address += route;
  }
  return message;
}

void CoordinatorNode::line_broken(const Line& line) {
  life_->unbound.erase(line);
  for (const auto& [peer, bound] : life_->bound) {
    if (bound != line) continue;
    const PeerId gone = peer;
    life_->bound.erase(gone);
    life_->machine->disconnected(world_.clock.now(), gone);
    return drain();
  }
}

void CoordinatorNode::drain() {
  // The process may die between any two effects of one decision.
  const bool doomed = world_.faults_on && world_.swarm.crash_point_percent > 0 &&
                      world_.crash_points.chance(world_.swarm.crash_point_percent, 1000);
  auto life = life_;
  while (life == life_ && !life->machine->outbox.empty()) {
    auto effects = std::exchange(life->machine->outbox, {});
    std::size_t survive = effects.size();
    if (doomed && effects.size() > 1) survive = world_.crash_points.below(effects.size());
    for (std::size_t i = 0; i < effects.size(); ++i) {
      if (i == survive) {
        world_.crash_coordinator_for_a_while();
        return;
      }
      if (!perform(effects[i])) return;
    }
  }
  if (life == life_) set_timer();
}

bool CoordinatorNode::perform(const protocol::CoordinatorEffect& effect) {
  if (const auto* send = std::get_if<protocol::SendTo>(&effect)) {
    const auto found = life_->bound.find(send->to);
    if (found == life_->bound.end()) return true;
    world_.checks.coordinator_sends(*this, send->to, send->message);
    found->second->send(1, world_.payload(send->message));
  } else if (const auto* persist = std::get_if<protocol::Persist>(&effect)) {
    file_ = persist->state;
    if (world_.swarm.check_codec) {
      file_ = protocol::decode_state(protocol::encode_state(*file_)).take();
    }
    world_.trace.fold(file_->view.epoch.counter);
    ++world_.views;
    world_.checks.persisted(*file_);
  } else if (const auto* ask = std::get_if<protocol::Probe>(&effect)) {
    probe(*ask);
  } else if (const auto* hang_up = std::get_if<protocol::Disconnect>(&effect)) {
    const auto found = life_->bound.find(hang_up->peer);
    if (found == life_->bound.end()) return true;
    found->second->close(1);
    life_->bound.erase(found);
  } else if (const auto* note = std::get_if<protocol::CoordinatorNote>(&effect)) {
    world_.say("coordinator: ", note->text);
  }
  return world_.running();
}

void CoordinatorNode::probe(const protocol::Probe& effect) {
  const MachineId machine = std::atoi(effect.addresses.front().c_str() + 1);
  const PeerId peer = effect.peer;
  const std::weak_ptr<Life> weak = life_;
  world_.network.probe(0, machine, [this, weak, peer](Network::DialResult result) {
    auto life = weak.lock();
    if (!life) return;
    life->process.run([this, weak, peer, result] {
      if (weak.lock() != life_) return;
      const auto heard = result == Network::DialResult::connected ? protocol::ProbeResult::reachable
                         : result == Network::DialResult::refused
                             ? protocol::ProbeResult::refused
                             : protocol::ProbeResult::unreachable;
      life_->machine->probed(world_.clock.now(), peer, heard);
      drain();
    });
  });
}

void CoordinatorNode::set_timer() {
  const auto next = life_->machine->next_deadline();
  if (!next || *next >= life_->timer) return;
  life_->timer = *next;
  const std::weak_ptr<Life> weak = life_;
  world_.clock.at(*next, [this, weak, due = *next] {
    auto life = weak.lock();
    if (!life) return;
    life->process.run([this, weak, due] {
      auto one = weak.lock();
      if (one != life_) return;
      if (one->timer == due) one->timer = never;
      const auto deadline = one->machine->next_deadline();
      if (deadline && *deadline <= world_.clock.now()) one->machine->tick(world_.clock.now());
      drain();
    });
  });
}

}  // namespace pyccl::sim
