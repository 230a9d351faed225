// The life of a peer's process, its connection to the coordinator, and its Member's effects.
#include "sim/protocol/peer_node.hpp"

#include <utility>

#include "base/mark.hpp"
#include "sim/protocol/world.hpp"

namespace pyccl::sim {

using namespace protocol;

namespace {

Timing timing_in(const World& world) {
  Timing timing = world.timing;
  timing.coordinator_limit = world.swarm.coordinator_limit.value_or(timing.coordinator_limit);
  return timing;
}

}  // namespace

PeerNode::PeerNode(World& world, MachineId machine, PeerId id, std::string group)
    : world_(world),
      machine_(machine),
      id_(id),
      group_(std::move(group)),
      name_("p" + std::to_string(machine)),
      member_({id, group_, Role::worker, {"m" + std::to_string(machine)}, timing_in(world)},
              world.clock.now()) {}

// An action for later that dies with this process and waits while it is stopped.
std::function<void()> PeerNode::guarded(std::function<void(PeerNode&)> action) {
  return [weak = weak_from_this(), action = std::move(action)] {
    auto self = weak.lock();
    if (!self) return;
    self->process_.run([weak, action] {
      if (auto one = weak.lock()) action(*one);
    });
  };
}

void PeerNode::start() {
  world_.say(name_, " starts as peer ", to_string(id_));
  dial_coordinator(Duration(0));
}

void PeerNode::crash(bool machine_too) {
  if (!alive()) return;
  world_.say(name_, " dies", machine_too ? " with its machine" : "");
  process_.stop();
  world_.network.listeners[machine_] = {!machine_too, false, nullptr};
  Prng& prng = world_.network.prng();
  const auto drop = [&](Connection& connection, int end) {
    const bool lost = machine_too || prng.chance(1, 2);
    const Duration silence = machine_too ? world_.half_open_time() : world_.network.latency();
    connection.abort(end, lost, silence);
  };
  if (line_) drop(*line_, 0);
  for (auto& [peer, channel] : channels_) {
    for (auto& lane : channel.lanes) drop(*lane.connection, lane.end);
  }
  channels_.clear();
  line_.reset();
  world_.checks.died(*this);
}

void PeerNode::pause(bool for_good) {
  stays_paused_ = stays_paused_ || for_good;
  if (!alive() || paused()) return;
  world_.say(name_, " stops");
  process_.pause();
}

void PeerNode::resume() {
  if (!alive() || !paused() || stays_paused_) return;
  world_.say(name_, " goes on");
  paused_until = world_.clock.now();
  process_.resume();
}

void PeerNode::after(Duration delay, std::function<void()> action) {
  world_.clock.after(delay, guarded([action = std::move(action)](PeerNode&) { action(); }));
}

Result<OpKey> PeerNode::post(Call call, Duration deadline) {
  call.deadline = world_.clock.now() + deadline;
  call.weight = world_.weight_of(id_, call.tag);
  const auto result = member_.post(world_.clock.now(), call);
  if (!result.ok()) {
    world_.checks.refused(*this, call, result.status());
    return result;
  }
  world_.say(name_, " posts ", to_string(result.value()), " ", to_string(call.descriptor));
  world_.checks.posted(*this, result.value(), call);
  drain();
  return result;
}

void PeerNode::cancel(OpKey op) {
  world_.say(name_, " cancels ", to_string(op));
  member_.refuse(world_.clock.now(), op, {Code::cancelled, "cancelled by its caller"});
  drain();
}

bool PeerNode::update(Duration deadline) {
  const Time end = world_.clock.now() + deadline;
  if (!member_.request_update(world_.clock.now(), end).ok()) return false;
  world_.say(name_, " calls update()");
  world_.checks.update_called(*this, end);
  drain();
  return true;
}

void PeerNode::cancel_update() {
  if (!member_.withdraw_update()) return;
  world_.say(name_, " gives update() up");
  const Status status(Code::cancelled, "cancelled by its caller");
  world_.checks.update_finished(*this, status);
  if (caller) caller->update_finished(status);
  drain();
}

void PeerNode::measured(std::vector<MeasuredLink> links) {
  member_.measured(world_.clock.now(), std::move(links));
  drain();
}

void PeerNode::leave(Duration deadline) {
  const Time end = world_.clock.now() + deadline;
  if (!member_.request_leave(world_.clock.now(), end).ok()) return;
  world_.say(name_, " leaves");
  world_.checks.leave_called(*this, end);
  drain();
}

void PeerNode::drain() {
  const auto self = shared_from_this();
  while (alive() && world_.running() && !member_.outbox.empty()) {
    const auto effects = std::exchange(member_.outbox, {});
    for (const MemberEffect& effect : effects) {
      if (!alive() || !world_.running()) return;
      perform(effect);
    }
  }
  if (!alive()) return;
  world_.checks.settled(*this);
  set_timer();
}

void PeerNode::perform(const MemberEffect& effect) {
  if (const auto* up = std::get_if<SendToCoordinator>(&effect)) {
    if (line_) line_->send(0, world_.payload(up->message));
  } else if (const auto* to_peer = std::get_if<SendToPeer>(&effect)) {
    send_to_peer(to_peer->to, world_.payload(to_peer->message));
  } else if (const auto* redial = std::get_if<RedialCoordinator>(&effect)) {
    world_.say(name_, " dials again: ", redial->reason);
    drop_coordinator_line();
    dial_coordinator(Duration(std::chrono::milliseconds(10)));
  } else if (const auto* connect = std::get_if<ConnectTo>(&effect)) {
    connect_to(*connect);
  } else if (const auto* installed = std::get_if<ViewInstalled>(&effect)) {
    world_.say(name_, " installs view ", to_string(installed->view.epoch), " of ",
               installed->view.members.size());
    world_.checks.installed(*this, installed->view);
    adopt(installed->view);
    if (caller) caller->installed(installed->view);
  } else if (const auto* start_it = std::get_if<StartOperation>(&effect)) {
    begin(*start_it);
  } else if (const auto* posted = std::get_if<PeerPosted>(&effect)) {
    peer_posted(*posted);
  } else if (const auto* done = std::get_if<OperationCommitted>(&effect)) {
    world_.say(name_, " commits ", to_string(done->op), done->hint ? ", joiners wait" : "");
    ++world_.commits;
    world_.checks.committed(*this, done->op, done->hint);
    if (caller) caller->committed(done->op.key, done->hint);
    exchanges_.erase(done->op.key);
  } else if (const auto* failure = std::get_if<OperationFailed>(&effect)) {
    world_.say(name_, " fails ", to_string(failure->op), ": ", failure->status.reason());
    ++world_.failures;
    world_.checks.failed(*this, failure->op, failure->status);
    exchanges_.erase(failure->op);
    if (caller) caller->failed(failure->op, failure->status);
  } else if (const auto* free = std::get_if<OperationWithdrawn>(&effect)) {
    world_.say(name_, " withdraws ", to_string(free->op));
    world_.checks.withdrawn(*this, free->op);
    exchanges_.erase(free->op);
    if (caller) caller->withdrawn(free->op);
  } else if (const auto* update = std::get_if<UpdateFinished>(&effect)) {
    world_.say(name_, " ends update(): ", update->status.ok() ? "ok" : update->status.reason());
    world_.checks.update_finished(*this, update->status);
    if (caller) caller->update_finished(update->status);
  } else if (std::holds_alternative<LeaveFinished>(effect)) {
    world_.checks.left(*this);
    departure = "left";
    finish("left");
  } else if (const auto* ended = std::get_if<Ended>(&effect)) {
    world_.checks.ended(*this, ended->status);
    departure = name_of(ended->status.code());
    finish(ended->status.reason());
  } else if (const auto* note = std::get_if<Note>(&effect)) {
    world_.say(name_, ": ", note->text);
  }
}

void PeerNode::finish(const std::string& why) {
  world_.say(name_, " ends: ", why);
  if (caller) caller->gone();
  crash(false);
}

void PeerNode::set_timer() {
  const auto next = member_.next_deadline();
  if (!next || *next >= timer_) return;
  timer_ = *next;
  world_.clock.at(*next, guarded([due = *next](PeerNode& self) {
    if (self.timer_ == due) self.timer_ = never;
    const auto deadline = self.member_.next_deadline();
    const Time now = self.world_.clock.now();
    if (deadline && *deadline <= now) self.member_.tick(now);
    self.drain();
  }));
}

void PeerNode::drop_coordinator_line() {
  if (!line_) return;
  // The planted bug: what the former connection still brings is read as if it came on the new one.
  if (PYCCL_MUTANT("stale-coordinator-messages")) {
    former_lines_.push_back(line_);
  } else {
    line_->close(0);
  }
  line_.reset();
}

void PeerNode::dial_coordinator(Duration delay) {
  const std::uint64_t attempt = ++dial_;
  world_.clock.after(delay, guarded([attempt](PeerNode& self) {
                       if (attempt != self.dial_) return;
                       std::weak_ptr<PeerNode> weak = self.weak_from_this();
                       self.world_.network.dial(
                           self.machine_, self.id_, 0, {},
                           [weak, attempt](Network::DialResult, std::shared_ptr<Connection> line) {
                             auto peer = weak.lock();
                             if (!peer || !peer->alive() || attempt != peer->dial_) {
                               if (line) line->close(0);
                               return;
                             }
                             peer->process_.run([weak, attempt, line] {
                               auto one = weak.lock();
                               if (!one || attempt != one->dial_) return;
                               if (line) {
                                 one->coordinator_line_up(line);
                               } else {
                                 one->dial_coordinator(std::chrono::milliseconds(300));
                               }
                             });
                           });
                     }));
}

void PeerNode::coordinator_line_up(std::shared_ptr<Connection> line) {
  line_ = std::move(line);
  const std::uint64_t attempt = dial_;
  const std::weak_ptr<PeerNode> weak = weak_from_this();
  ConnectionEnd end;
  end.receive = [weak, attempt](const PayloadPointer& payload) {
    auto self = weak.lock();
    if (!self) return;
    self->process_.run([weak, attempt, payload] {
      auto one = weak.lock();
      if (!one) return;
      const bool stale = attempt != one->dial_ && !PYCCL_MUTANT("stale-coordinator-messages");
      if (!stale) one->receive_from_coordinator(attempt, payload);
    });
  };
  end.broken = [weak, attempt] {
    auto self = weak.lock();
    if (!self) return;
    self->process_.run([weak, attempt] {
      auto one = weak.lock();
      if (!one || attempt != one->dial_) return;
      one->line_.reset();
      one->member_.coordinator_disconnected(one->world_.clock.now());
      one->drain();
    });
  };
  line_->attach(0, std::move(end));
  member_.coordinator_connected(world_.clock.now());
  drain();
}

void PeerNode::receive_from_coordinator(std::uint64_t line, const PayloadPointer& payload) {
  const auto& message = std::get<Message>(*payload);
  world_.checks.heard_coordinator(*this, line, message);
  world_.say_message(name_ + " <- coordinator ", {}, message);
  member_.receive(world_.clock.now(), message);
  drain();
}

}  // namespace pyccl::sim
