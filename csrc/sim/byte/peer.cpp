// Turns, calls and events of a peer's process; see peer.hpp.
#include "sim/byte/peer.hpp"

#include <utility>

#include "base/assert.hpp"
#include "sim/byte/user.hpp"
#include "sim/byte/world.hpp"

namespace pyccl::sim {

namespace {

constexpr std::uint64_t turns_max = 100'000;  // in a virtual second

}  // namespace

BytePeer::BytePeer(ByteWorld& world, int machine, PeerId id, std::string group)
    : world_(world),
      machine_(machine),
      id_(id),
      group_(std::move(group)),
      name_("p" + std::to_string(machine) + "/" + to_string(id).substr(12)),
      mirror_(world.swarm.mirror && machine == world.swarm.machines),
      host_(world.network.host(world.host_of(machine))),
      alarm_(world.clock, host_) {}

BytePeer::~BytePeer() = default;

void BytePeer::start() {
  if (!host_.up()) host_.power_on();
  if (host_.paused()) host_.resume();
  engine::PeerOptions options;
  options.peer = id_;
  options.coordinator = {world_.coordinator.address()};
  options.group = group_;
  if (mirror_) options.role = protocol::Role::mirror;
  options.listen = machine_ % 2 == 0 ? "0.0.0.0:0" : host_.name() + ":0";
  options.connections = world_.swarm.connections;
  if (machine_ % 2 == 0) options.connections *= world_.swarm.connections_factor;
  options.segment_bytes = world_.swarm.segment_bytes;
  options.measured_bytes_min = 200;
  options.timing = world_.timing;
  if (world_.swarm.connect_limit.count() > 0) {
    connect_deadline_ = world_.clock.now() + world_.swarm.connect_limit;
    options.connect_deadline = *connect_deadline_;
  }
  options.seed = world_.identities.next();
  auto opened = engine::Peer::open(options, host_, world_.clock);
  PYCCL_ASSERT(opened.ok());
  engine_ = opened.take();
  user_ = std::make_unique<ByteUser>(world_, *this);
  const std::weak_ptr<BytePeer> weak = weak_from_this();
  host_.set_turn([weak] {
    if (const auto peer = weak.lock(); peer && peer->alive()) peer->turn();
  });
  world_.say(name_ + " starts at " + engine_->address());
  host_.wake();
}

void BytePeer::crash(bool power) {
  if (!alive()) return;
  world_.say(name_ + (power ? " loses power" : " is killed"));
  if (power) {
    host_.power_off();
  } else {
    host_.kill();
  }
  gone();
}

void BytePeer::gone() {
  // A restarted coordinator may wait so long for it.
  world_.doubt_for(world_.timing.recovery_limit);
  world_.checks.tell(&ByteCheck::died, *this);
  inbox_.clear();
  open_.clear();
  engine_.reset();
}

void BytePeer::pause(bool for_good) {
  world_.say(name_ + " is stopped");
  host_.pause();
  stays_paused_ = stays_paused_ || for_good;
  if (for_good) world_.doubt_for(world_.timing.recovery_limit);
}

void BytePeer::resume() {
  if (!alive() || stays_paused_ || !host_.paused()) return;
  world_.say(name_ + " goes on");
  paused_until = world_.clock.now();
  host_.resume();
}

void BytePeer::after(Duration delay, std::function<void()> action) {
  const std::weak_ptr<BytePeer> weak = weak_from_this();
  world_.clock.after(delay, [weak, action = std::move(action)] {
    const auto peer = weak.lock();
    if (!peer || !peer->alive()) return;
    peer->inbox_.push_back(action);
    peer->host_.wake();
  });
}

// ---- a turn, as the runtime's loop has it
void BytePeer::turn() {
  const Time now = world_.clock.now();
  if (now - second_ >= 1s) {
    second_ = now;
    turns_ = 0;
  }
  if (++turns_ == turns_max) world_.fail("livelock", name_ + " spins");
  host_.poll();
  for (const auto& action : std::exchange(inbox_, {})) action();
  if (const auto due = engine_->next_deadline(); due && *due <= now) engine_->tick();
  if (crashes_in_turn_) return crash(false);
  engine_->end_turn();
  number_calls();
  drain();
  if (!alive()) return;
  world_.checks.tell(&ByteCheck::settled, *this);
  alarm_.set(engine_->next_deadline());
}

void BytePeer::drain() {
  while (alive() && !engine_->events.empty()) {
    const auto events = std::exchange(engine_->events, {});
    view_changed_ = false;
    for (const auto& event : events) {
      view_changed_ = view_changed_ || std::holds_alternative<engine::ViewChanged>(event);
    }
    for (const auto& event : events) {
      if (alive()) std::visit([this](const auto& each) { on(each); }, event);
    }
  }
}

void BytePeer::on(const engine::ViewChanged& event) {
  world_.trace.fold(event.view.epoch.counter + (std::uint64_t{event.view.epoch.incarnation} << 32));
  world_.say(name_ + " installs view " + to_string(event.view.epoch) + " with " +
             std::to_string(event.view.members.size()) + ": " + event.view.reason);
  admitted_ = true;
  connect_deadline_.reset();
  world_.checks.tell(&ByteCheck::installed, *this, event.view);
  user_->installed(event.view);
}

void BytePeer::on(const engine::Finished& event) {
  world_.trace.fold(event.ticket + (static_cast<std::uint64_t>(event.status.code()) << 48));
  if (event.ticket == update_) {
    update_ = 0;
    update_deadline_.reset();
    world_.say(name_ + " ends update(): " + event.status.reason());
    user_->update_finished(event.status);
    return;
  }
  if (event.ticket == leave_) {
    leave_ = 0;
    leave_deadline_.reset();
    world_.say(name_ + " ends leave(): " + event.status.reason());
    world_.checks.tell(&ByteCheck::left, *this, event.status);
    return;
  }
  auto node = open_.extract(event.ticket);
  if (node.empty()) return world_.fail("calls", name_ + " ends a call that is not open");
  Posting& posting = node.mapped();
  if (!posting.key && event.op) numbered(posting, *event.op);
  world_.say(name_ + " ends " + (posting.key ? to_string(*posting.key) : "a refused call") + ": " +
             (event.status.ok() ? "committed in view " + to_string(event.info.epoch)
                                : event.status.reason()));
  ++(event.status.ok() ? world_.commits : world_.failures);
  world_.checks.tell(&ByteCheck::finished, *this, posting, event, !view_changed_);
  user_->finished(posting, event);
}

void BytePeer::on(const engine::Ended& event) {
  world_.say(name_ + " ends: " + event.status.reason());
  ended_ = true;
  connect_deadline_.reset();
  world_.doubt_for(world_.timing.recovery_limit);
  world_.checks.tell(&ByteCheck::ended, *this, event.status);
  // Its last words still have to leave, if they can; then the process exits.
  after(world_.swarm.network.silence_limit * 2, [this] {
    const std::size_t streams = host_.open_streams() + host_.open_listeners();
    const std::size_t slots = engine_->load().slots;
    if (streams + slots > 0) {
      world_.fail("S13", name_ + " has ended and still holds " + std::to_string(streams) +
                             " streams and " + std::to_string(slots) + " slots");
    }
    const auto self = shared_from_this();
    world_.say(name_ + " exits");
    world_.clock.after(1us, [self] {
      if (!self->alive()) return;
      self->gone();
      self->host_.kill();
    });
  });
}

void BytePeer::on(const engine::Log& event) { world_.say(name_ + ": " + event.text); }

// ---- calls
Posting BytePeer::post(std::uint32_t tag, const CallShape& shape, Duration limit) {
  Posting posting;
  posting.ticket = ++last_ticket_;
  posting.tag = tag;
  posting.deadline = world_.clock.now() + limit;
  Caller caller{0, engine_->view().group_members(group_id(group_)), mirror_};
  caller.self = engine_->view().rank_of(id_).value_or(0);
  // Who has been evicted learns it from the call.
  if (caller.peers.empty()) caller.peers.push_back(id_);
  posting.call = std::make_shared<ByteCall>(world_.next_call++, shape, caller, world_.users);
  Posting& open = open_[posting.ticket] = posting;
  engine_->call(posting.ticket, posting.call->request(tag, posting.deadline));
  number_calls();
  return open;
}

// A call may be held back for a while before it becomes an operation.
void BytePeer::number_calls() {
  for (auto& [ticket, posting] : open_) {
    if (posting.key) continue;
    if (const auto key = engine_->key_of(ticket)) numbered(posting, *key);
  }
}

void BytePeer::numbered(Posting& posting, OpKey key) {
  posting.key = key;
  world_.say(name_ + " calls " + to_string(key) + ": " + to_string(*posting.call));
  world_.checks.tell(&ByteCheck::posted, *this, posting);
}

void BytePeer::cancel(engine::Ticket ticket) {
  if (ticket == update_) {
    world_.say(name_ + " gives update() up");
    update_deadline_ = world_.clock.now();
    return engine_->cancel(ticket);
  }
  const auto found = open_.find(ticket);
  if (found == open_.end()) return;
  found->second.cancelled = true;
  engine_->cancel(ticket);
}

engine::Ticket BytePeer::update(Duration limit) {
  world_.say(name_ + " calls update()");
  update_ = ++last_ticket_;
  update_deadline_ = world_.clock.now() + limit;
  engine_->update(update_, *update_deadline_);
  return update_;
}

void BytePeer::leave(Duration limit) {
  world_.say(name_ + " leaves");
  leave_ = ++last_ticket_;
  leave_deadline_ = world_.clock.now() + limit;
  engine_->leave(leave_, *leave_deadline_);
}

}  // namespace pyccl::sim
