// Communicator: a Peer, its reactor and a thread that runs both.
//
// One turn of the loop takes all commands that have gathered, runs what is due, writes once, and
// hands out what has ended. The caller's thread does no more than fill a command, push it and, if
// nobody did so before it, wake the loop.
#include "runtime/communicator.hpp"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <new>
#include <set>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <variant>

#include "base/fork.hpp"
#include "base/queue.hpp"
#include "engine/peer.hpp"
#include "engine/state_sync.hpp"
#include "runtime/addresses.hpp"
#include "runtime/reactor.hpp"
#include "runtime/shared_loop.hpp"
#include "runtime/system.hpp"
#include "transport/shm/network.hpp"
#include "transport/tcp/network.hpp"

namespace pyccl::runtime {

namespace {

constexpr std::size_t commands_max = 4096;
constexpr std::uint32_t connections_max = 64;
constexpr Duration spin_max = 1s;
// A caller that waits looks so long before it sleeps, whatever it was told: a few times what it
// costs to be woken, so it never loses much, and mostly wins that.
constexpr Duration driven_spin = 100us;
// Beyond this a timeout counts as none; it keeps "now + timeout" from overflowing.
constexpr Duration timeout_max = 24h * 365 * 100;

struct Update {
  bool if_due = false;
};
struct Leave {};
struct Cancel {};
using Call = std::variant<engine::Request, Update, Leave, Cancel>;

// What a caller's thread hands to the loop. Of Cancel, `work` is the one to give up.
struct Command {
  Call call;
  Duration timeout{};
  WorkPtr work;
};

// What the thread works on.
class Loop final : public WorkDriver {
 public:
  explicit Loop(const protocol::Timing& timing)
      : commands_(commands_max),
        tcp_(reactor_, {timing.silence_limit()}),
        network_(reactor_, tcp_, {random_identity()}),
        shared_(reactor_, {[this](Time until, bool driven) { turn(until, driven); },
                           [this] { return !open_.empty(); }}) {}

  Status open(const engine::PeerOptions& options, Duration timeout, LogSink log);
  void spin_for(Duration duration) { spin_ = duration; }
  void run();
  bool in_this_process() const override { return fork_generation() == generation_; }
  bool drive(const Work& work, Duration at_most) override;

  void submit(Command command, Then then);
  void request_close() { shared_.stop(); }
  ViewSnapshot snapshot() const;
  const WorkPtr& admission() const { return admission_; }
  const std::string& address() const { return address_; }

 private:
  void turn(Time until, bool driven);
  void finish_turn();
  void end_without_memory();
  void execute(Command& command);
  void dispatch();
  void on(engine::ViewChanged& event);
  void on(engine::Finished& event);
  void on(engine::Ended& event);
  void on(engine::LinksMeasured& event);
  void on(engine::Log& event);
  std::vector<std::uint32_t> rates_to(const std::vector<PeerId>& peers) const;
  void note_end(const Status& status);
  void end_all(const Status& status);

  Reactor reactor_;
  Duration spin_{};
  CommandQueue<Command> commands_;
  transport::tcp::TcpNetwork tcp_;
  transport::shm::ShmNetwork network_;
  SharedLoop shared_;
  std::unique_ptr<engine::Peer> peer_;
  LogSink log_;
  std::string address_;
  PeerId self_;
  WorkPtr admission_ = std::make_shared<Work>();
  const std::uint32_t generation_ = fork_generation();

  // Of whoever is in the loop.
  engine::Ticket last_ticket_ = 0;
  std::unordered_map<engine::Ticket, WorkPtr> open_;
  std::vector<Command> batch_;
  std::vector<engine::PeerEvent> events_;
  std::optional<Status> ended_;  // never ok
  bool out_of_memory_ = false;

  // Whether these are due shows when it is known what became of what was cancelled.
  std::vector<Command> waiting_boundaries_;
  std::vector<protocol::MeasuredLink> links_;
  mutable std::mutex snapshot_mutex_;
  ViewSnapshot snapshot_;
};

Status Loop::open(const engine::PeerOptions& given, Duration timeout, LogSink log) {
  engine::PeerOptions options = given;
  options.connect_deadline = reactor_.now() + std::min(timeout, timeout_max);
  log_ = std::move(log);
  self_ = options.peer;
  auto peer = engine::Peer::open(options, network_, reactor_);
  if (!peer.ok()) return peer.status();
  peer_ = peer.take();
  address_ = peer_->address();
  return {};
}

void Loop::run() {
  shared_.run([this] {
    commands_.close();
    peer_->close();
    finish_turn();
    end_all(Status(Code::closed, "the communicator has been closed"));
    peer_.reset();
  });
}

bool Loop::drive(const Work& work, Duration at_most) {
  return shared_.drive([&work] { return work.done(); }, at_most);
}

void Loop::turn(Time until, bool driven) {
  try {
    reactor_.spin_for(driven ? std::max(spin_, driven_spin) : spin_);
    // A caller that drives has queued its command without waking anybody, so the wait must not
    // sleep over it.
    const Time due = peer_->next_deadline().value_or(never);
    reactor_.run_once(commands_.empty() ? std::min(until, due) : reactor_.now());
    finish_turn();
  } catch (const std::bad_alloc&) {
    end_without_memory();
  }
}

// The memory of operations is not what lacks (engine/operation.cpp refuses those), so nobody knows
// what was left undone: this communicator ends, and to the others it has died.
void Loop::end_without_memory() {
  out_of_memory_ = true;
  note_end(Status(Code::limit_exceeded,
                  "the process has run out of memory, so this communicator has ended"));
  for (Command& command : batch_) {
    if (command.work && !std::holds_alternative<Cancel>(command.call)) {
      command.work->finish(*ended_, {});
    }
  }
  batch_.clear();
  shared_.stop();
}

void Loop::finish_turn() {
  commands_.drain(batch_);
  for (Command& command : batch_) execute(command);
  batch_.clear();
  if (const auto due = peer_->next_deadline(); due && *due <= reactor_.now()) peer_->tick();
  peer_->end_turn();
  dispatch();
  if (waiting_boundaries_.empty() || peer_->undecided()) return;
  for (Command& command : std::exchange(waiting_boundaries_, {})) execute(command);
  peer_->end_turn();
  dispatch();
}

void Loop::execute(Command& command) {
  if (std::holds_alternative<Cancel>(command.call)) {
    const auto at = std::find_if(open_.begin(), open_.end(),
                                 [&](const auto& each) { return each.second == command.work; });
    if (at != open_.end()) peer_->cancel(at->first);
    std::erase_if(waiting_boundaries_, [&](const Command& each) {
      if (each.work != command.work) return false;
      each.work->finish(Status(Code::cancelled, "cancelled by its caller", self_), {});
      return true;
    });
    return;
  }
  if (ended_) {
    command.work->finish(*ended_, {});
    return;
  }
  const engine::Ticket ticket = ++last_ticket_;
  const Time deadline = reactor_.now() + std::clamp(command.timeout, Duration::zero(), timeout_max);
  const auto* update = std::get_if<Update>(&command.call);
  if (update != nullptr && update->if_due && peer_->undecided()) {
    waiting_boundaries_.push_back(std::move(command));
    return;
  }
  if (update != nullptr && update->if_due && !peer_->boundary_due()) {
    command.work->finish({}, {});
    return;
  }
  open_.emplace(ticket, std::move(command.work));
  std::visit(
      [&](auto& call) {
        using Kind = std::decay_t<decltype(call)>;
        if constexpr (std::is_same_v<Kind, engine::Request>) {
          call.deadline = deadline;
          peer_->call(ticket, std::move(call));
        } else if constexpr (std::is_same_v<Kind, Update>) {
          peer_->update(ticket, deadline);
        } else if constexpr (std::is_same_v<Kind, Leave>) {
          peer_->leave(ticket, deadline);
        }
      },
      command.call);
}

void Loop::dispatch() {
  events_.clear();
  events_.swap(peer_->events);
  // The view shows the end before any caller learns of it, also one whose leave() went well.
  for (const auto& event : events_) {
    if (const auto* end = std::get_if<engine::Ended>(&event)) note_end(end->status);
  }
  for (auto& event : events_) {
    std::visit([this](auto& each) { on(each); }, event);
  }
}

void Loop::on(engine::ViewChanged& event) {
  std::vector<PeerId> peers;
  if (const auto* own = event.view.find(self_)) {
    peers = event.view.group_members(group_id(own->group));
  }
  std::set<std::string_view> groups;
  for (const auto& member : event.view.members) groups.insert(member.group);
  {
    const std::lock_guard lock(snapshot_mutex_);
    snapshot_.epoch = event.view.epoch;
    snapshot_.rank = event.view.rank_of(self_).value_or(-1);
    snapshot_.mb_per_s = rates_to(peers);
    snapshot_.members_most = std::max(snapshot_.members_most, peers.size());
    snapshot_.groups = groups.size();
    snapshot_.peers = std::move(peers);
  }
  if (!admission_->done()) admission_->finish({}, {});
}

void Loop::on(engine::Finished& event) {
  auto node = open_.extract(event.ticket);
  if (node.empty()) {
    PYCCL_ASSERT(ended_);  // a call that the end overtook has got the end's status
    return;
  }
  if (out_of_memory_ && !event.status.ok()) event.status = *ended_;
  node.mapped()->finish(std::move(event.status), std::move(event.info));
}

void Loop::on(engine::LinksMeasured& event) {
  links_ = std::move(event.links);
  const std::lock_guard lock(snapshot_mutex_);
  snapshot_.mb_per_s = rates_to(snapshot_.peers);
}

std::vector<std::uint32_t> Loop::rates_to(const std::vector<PeerId>& peers) const {
  std::vector<std::uint32_t> rates(peers.size());
  for (const protocol::MeasuredLink& link : links_) {
    const auto found = std::ranges::find(peers, link.peer);
    const std::uint32_t rate = link.latency_us == 0 ? engine::near_mb_per_s : link.mb_per_s;
    if (found != peers.end()) rates[static_cast<std::size_t>(found - peers.begin())] = rate;
  }
  return rates;
}

void Loop::on(engine::Ended& event) { end_all(event.status); }

void Loop::on(engine::Log& event) {
  if (log_) log_(event.level, event.text);
}

void Loop::note_end(const Status& status) {
  if (ended_) return;
  // An orderly leave is no failure, but whatever is asked for after it is one.
  ended_ = status.ok() ? Status(Code::closed, "the communicator has left the run") : status;
  const std::lock_guard lock(snapshot_mutex_);
  snapshot_.ended = true;
  snapshot_.end_reason = *ended_;
}

void Loop::end_all(const Status& status) {
  note_end(status);
  if (!admission_->done()) admission_->finish(*ended_, {});
  for (auto& [ticket, work] : std::exchange(open_, {})) work->finish(*ended_, {});
  for (const Command& each : std::exchange(waiting_boundaries_, {})) {
    each.work->finish(*ended_, {});
  }
}

void Loop::submit(Command command, Then then) {
  const WorkPtr work = command.work;
  const bool cancels = std::holds_alternative<Cancel>(command.call);
  switch (commands_.push(command)) {
    case Pushed::first:
    case Pushed::behind: shared_.disturb(then == Then::waits); break;
    case Pushed::full:
      if (!cancels) work->finish(Status(Code::limit_exceeded, "too many calls at once"), {});
      break;
    case Pushed::closed:
      if (!cancels) work->finish(Status(Code::closed, "the communicator has been closed"), {});
      break;
  }
}

ViewSnapshot Loop::snapshot() const {
  const std::lock_guard lock(snapshot_mutex_);
  return snapshot_;
}

// ---- the handle
class ThreadedCommunicator final : public Communicator {
 public:
  ThreadedCommunicator(std::shared_ptr<Loop> loop, PeerId self)
      : loop_(std::move(loop)),
        self_(self),
        thread_("pyccl-peer", loop_, [its_loop = loop_.get()] { its_loop->run(); }) {}

  ~ThreadedCommunicator() override { close(); }

  WorkPtr admission() override { return loop_->admission(); }
  WorkPtr call(engine::Request request, Duration timeout, Then then) override {
    return submit(std::move(request), timeout, then);
  }
  WorkPtr update(Duration timeout) override { return submit(Update{}, timeout); }
  WorkPtr boundary(Duration timeout) override {
    return submit(Update{.if_due = true}, timeout, Then::waits);
  }
  WorkPtr leave(Duration timeout) override { return submit(Leave{}, timeout); }

  void cancel(const WorkPtr& work) override {
    if (!thread_.in_forked_child()) {
      loop_->submit({Cancel{}, {}, work}, Then::goes_on);
    } else if (!work->done()) {
      work->finish(Status(Code::closed, "a forked process can't use its parent's work"), {});
    }
  }

  void close() override {
    if (thread_.in_forked_child()) return;
    loop_->request_close();
    thread_.join();
  }

  ViewSnapshot view() const override { return loop_->snapshot(); }
  bool enter_sync() override { return !syncing_.exchange(true); }
  void leave_sync() override { syncing_ = false; }
  PeerId peer() const override { return self_; }
  std::string address() const override { return loop_->address(); }

 private:
  WorkPtr submit(Call call, Duration timeout, Then then = Then::goes_on) {
    auto work = std::make_shared<Work>(std::weak_ptr<WorkDriver>(loop_));
    if (thread_.in_forked_child()) {
      work->finish(Status(Code::closed, "a forked process can't use its parent's communicator"),
                   {});
    } else {
      loop_->submit({std::move(call), timeout, work}, then);
    }
    return work;
  }

  const std::shared_ptr<Loop> loop_;
  const PeerId self_;
  std::atomic<bool> syncing_ = false;
  LoopThread thread_;
};

Status check(const ConnectOptions& options) {
  const auto refuse = [](std::string why) {
    return Status(Code::invalid_argument, std::move(why));
  };
  if (options.connections < 1 || options.connections > connections_max) {
    return refuse("connections must be 1 to " + std::to_string(connections_max) + ", not " +
                  std::to_string(options.connections));
  }
  if (options.group.empty() || options.group.size() > protocol::name_bytes_max) {
    return refuse("a group's name has 1 to " + std::to_string(protocol::name_bytes_max) + " bytes");
  }
  if (options.timeout <= Duration::zero()) return refuse("the timeout must be above 0");
  if (options.timing.heartbeat_limit <= Duration::zero()) {
    return refuse("the heartbeat limit must be above 0");
  }
  if (options.timing.coordinator_limit <= Duration::zero()) {
    return refuse("the coordinator limit must be above 0");
  }
  if (options.spin < Duration::zero() || options.spin > spin_max) {
    return refuse("spin_us must be 0 to 1000000");
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Communicator>> Communicator::open(const ConnectOptions& options) {
  if (Status status = check(options); !status.ok()) return status;
  engine::PeerOptions peer;
  auto coordinator = resolve_all(options.coordinator);
  if (!coordinator.ok()) return coordinator.status();
  peer.coordinator = coordinator.take();
  if (options.listen) {
    auto listen = resolve_first(*options.listen);
    if (!listen.ok()) return listen.status();
    peer.listen = listen.take();
  } else {
    peer.listen = default_listen(peer.coordinator);
  }
  if (options.advertise) {
    auto advertise = resolve_first(*options.advertise);
    if (!advertise.ok()) return advertise.status();
    peer.advertise = {advertise.take()};
  }
  peer.peer = PeerId{random_identity()};
  peer.group = options.group;
  peer.role = options.role;
  peer.connections = options.connections;
  peer.transport = options.transport;
  peer.timing = options.timing;
  peer.seed = random_identity();

  try {
    auto loop = std::make_shared<Loop>(peer.timing);
    loop->spin_for(options.spin);
    if (Status status = loop->open(peer, options.timeout, options.log); !status.ok()) return status;
    return std::unique_ptr<Communicator>(
        std::make_unique<ThreadedCommunicator>(std::move(loop), peer.peer));
  } catch (const std::exception& error) {
    return shortage("a communicator", error);
  }
}

}  // namespace pyccl::runtime
