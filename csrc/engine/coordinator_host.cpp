// The coordinator's host: connections in, effects out, in order.
//
// A connection is a stranger until its first message, which must be Hello or Register and binds it
// to that peer. Only messages of bound connections reach the machine, and a second connection of a
// peer replaces the first together with what was still unread on it (rule R12).
#include "engine/coordinator_host.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/assert.hpp"
#include "protocol/codec.hpp"

namespace pyccl::engine {

namespace {

constexpr std::uint32_t stranger_lines_per_second = 10;
// A flood of peers that are refused must not pile up connections that linger.
constexpr std::size_t leaving_max = 64;
// Those whom the machine refuses stay bound for a moment, hence more than it takes.
constexpr std::size_t bound_max = 2 * (protocol::members_max + protocol::joiners_max);
constexpr Duration begin_again_interval = 1s;

// "0.0.0.0:1" names a port of a host that only the other side of the connection can tell.
bool host_is_unspecified(const std::string& address) {
  return address.starts_with("0.0.0.0:") || address.starts_with("[::]:");
}

std::string with_host_of(const std::string& address, const std::string& host_source) {
  std::string host = host_source.substr(0, host_source.rfind(':'));
  // How a listener of both families names an IPv4 peer; others may have no IPv6 to dial that.
  constexpr std::string_view mapped = "[::ffff:";
  if (host.starts_with(mapped) && host.find('.') != std::string::npos) {
    host = host.substr(mapped.size(), host.size() - mapped.size() - 1);
  }
  return host + address.substr(address.rfind(':'));
}

void complete_addresses(std::vector<std::string>& addresses, const std::string& remote) {
  for (auto& address : addresses) {
    if (host_is_unspecified(address)) address = with_host_of(address, remote);
  }
}

// Who a first message says it is; nobody if it is no first message.
PeerId introduction(const protocol::Message& message) {
  if (const auto* hello = std::get_if<protocol::Hello>(&message)) return hello->member.peer;
  if (const auto* back = std::get_if<protocol::Register>(&message)) return back->peer;
  return {};
}

bool introduces(const protocol::Message& message) {
  return std::holds_alternative<protocol::Hello>(message) ||
         std::holds_alternative<protocol::Register>(message);
}

}  // namespace

struct CoordinatorHost::Link final : transport::ConnectionObserver {
  explicit Link(CoordinatorHost& its_host) : host(its_host) {}

  void on_open(transport::Connection&) override {}
  void on_message(transport::Connection&, ByteView body) override {
    if (!ended) host.on_message(*this, body);
  }
  void on_closed(transport::Connection&, Status status) override {
    if (!ended) host.on_closed(*this, status);
  }

  CoordinatorHost& host;
  std::unique_ptr<transport::Connection> connection;
  PeerId peer;    // nobody: a stranger
  Time deadline;  // of its first or last words
  bool ended = false;
  bool written = false;
};

// One address of a peer that is being probed.
struct CoordinatorHost::Dial final : transport::StreamObserver {
  explicit Dial(Probing& its_probing) : probing(its_probing) {}

  void on_connected() override;
  void on_readable() override { on_connected(); }
  void on_writable() override {}
  void on_failed(Status) override;

  Probing& probing;
  std::unique_ptr<transport::Stream> stream;  // bare: a peer learns nothing from being probed
};

struct CoordinatorHost::Probing {
  Probing(CoordinatorHost& its_host, PeerId whom, Time until)
      : host(its_host), peer(whom), deadline(until) {}

  CoordinatorHost& host;
  PeerId peer;
  Time deadline;
  std::vector<std::unique_ptr<Dial>> dials;
  std::size_t refused = 0;
  std::size_t failed = 0;
  bool concluded = false;
};

void CoordinatorHost::Dial::on_connected() {
  // One address that answers is enough.
  if (!probing.concluded) {
    probing.host.conclude(probing.peer, protocol::ProbeResult::reachable);
  }
}

void CoordinatorHost::Dial::on_failed(Status status) {
  if (probing.concluded) return;
  ++probing.failed;
  if (status.reason().find("refused") != std::string::npos) ++probing.refused;
  if (probing.failed < probing.dials.size()) return;
  // An address that nobody answers may lie in another network than ours, so only a refusal of all
  // of them proves that the process is gone.
  probing.host.conclude(probing.peer, probing.refused == probing.dials.size()
                                          ? protocol::ProbeResult::refused
                                          : protocol::ProbeResult::unreachable);
}

// ---- life
Result<std::unique_ptr<CoordinatorHost>> CoordinatorHost::open(
    const CoordinatorHostOptions& options, transport::Network& network, const Clock& clock,
    StateStore& store) {
  std::unique_ptr<CoordinatorHost> host(new CoordinatorHost(options, network, clock, store));
  // The port first: a coordinator that can't listen must not use up an incarnation.
  auto listener = network.listen(options.listen, host.get());
  if (!listener.ok()) return listener.status();
  host->listener_ = listener.take();
  host->begin();
  return host;
}

CoordinatorHost::CoordinatorHost(const CoordinatorHostOptions& options, transport::Network& network,
                                 const Clock& clock, StateStore& store)
    : options_(options),
      network_(network),
      clock_(clock),
      store_(store),
      durable_(options.recovered) {}

CoordinatorHost::~CoordinatorHost() = default;

void CoordinatorHost::begin() {
  begin_again_at_.reset();
  incarnation_ = durable_ ? durable_->incarnation + 1 : 1;
  machine_ = std::make_unique<protocol::Coordinator>(options_.machine, durable_, clock_.now());
  say(LogLevel::info, "coordinator begins, incarnation " + std::to_string(incarnation_));
  run_effects();
}

void CoordinatorHost::begin_again_later(const Status& status) {
  say(LogLevel::error,
      "the state can't be written (" + status.reason() + "); no view is made until it can");
  machine_.reset();
  begin_again_at_ = clock_.now() + begin_again_interval;
  // Peers learn it as they would learn a crash, and dial again.
  const auto drop = [this](std::unique_ptr<Link>& link) {
    link->ended = true;
    link->connection->close();
    ended_links_.push_back(std::move(link));
  };
  for (auto& [peer, link] : bound_) drop(link);
  bound_.clear();
  for (auto& link : strangers_) drop(link);
  strangers_.clear();
  for (auto& [peer, probing] : probes_) {
    probing->concluded = true;
    ended_probes_.push_back(std::move(probing));
  }
  probes_.clear();
}

void CoordinatorHost::tick() {
  const Time now = clock_.now();
  if (begin_again_at_ && *begin_again_at_ <= now) begin();
  while (!strangers_.empty() && strangers_.front()->deadline <= now) {
    Link& link = *strangers_.front();
    say_of_stranger("a connection from " + link.connection->remote_address() +
                    " said nothing in time; closed");
    link.connection->close();
    ended_links_.push_back(take(link));
  }
  // Both lists are in the order of their deadlines, since all wait equally long.
  while (!leaving_.empty() && leaving_.front()->deadline <= now) leaving_.pop_front();
  std::vector<PeerId> late;
  for (const auto& [peer, probing] : probes_) {
    if (probing->deadline <= now) late.push_back(peer);
  }
  for (PeerId peer : late) {
    // The one before may have ended all: if a view can't be written, nothing is left.
    const auto probe = probes_.find(peer);
    if (probe == probes_.end() || probe->second->deadline > now) continue;
    conclude(peer, protocol::ProbeResult::unreachable);
  }
  // After the probes, so that a peer is not judged without the answer that has just come.
  if (machine_) {
    if (const auto due = machine_->next_deadline(); due && *due <= now) machine_->tick(now);
  }
  run_effects();
}

std::optional<Time> CoordinatorHost::next_deadline() const {
  std::optional<Time> next = begin_again_at_;
  if (!strangers_.empty()) next = earlier(next, strangers_.front()->deadline);
  if (!leaving_.empty()) next = earlier(next, leaving_.front()->deadline);
  for (const auto& [peer, probing] : probes_) next = earlier(next, probing->deadline);
  if (machine_) next = earlier(next, machine_->next_deadline());
  return next;
}

void CoordinatorHost::end_turn() {
  run_effects();
  for (const auto& [peer, link] : bound_) {
    if (!std::exchange(link->written, false)) continue;
    link->connection->flush();
  }
  run_effects();  // a flush may find that a connection is gone
  std::erase_if(leaving_, [](const auto& link) { return link->connection->closed(); });
  ended_links_.clear();
  ended_probes_.clear();
}

std::string CoordinatorHost::address() const { return listener_->address(); }

std::size_t CoordinatorHost::connection_count() const {
  return strangers_.size() + bound_.size() + leaving_.size();
}

// ---- connections
void CoordinatorHost::on_accepted(std::unique_ptr<transport::Stream> stream) {
  if (!machine_) return;  // closed at once: there is nobody to talk to
  if (strangers_.size() >= strangers_max) {
    Link& oldest = *strangers_.front();
    say_of_stranger("too many connections that say nothing; the oldest, from " +
                    oldest.connection->remote_address() + ", is closed");
    oldest.connection->close();
    ended_links_.push_back(take(oldest));
  }
  auto link = std::make_unique<Link>(*this);
  link->connection =
      transport::Connection::accepted(std::move(stream), link.get(), protocol::register_bytes_max);
  link->deadline = clock_.now() + options_.hello_limit;
  strangers_.push_back(std::move(link));
}

// Out of the list that holds it. The caller decides what becomes of it.
std::unique_ptr<CoordinatorHost::Link> CoordinatorHost::take(Link& link) {
  link.ended = true;
  if (link.peer) {
    auto node = bound_.extract(link.peer);
    PYCCL_ASSERT(!node.empty() && node.mapped().get() == &link);
    return std::move(node.mapped());
  }
  const auto at = std::find_if(strangers_.begin(), strangers_.end(),
                               [&](const auto& other) { return other.get() == &link; });
  PYCCL_ASSERT(at != strangers_.end());
  auto taken = std::move(*at);
  strangers_.erase(at);
  return taken;
}

void CoordinatorHost::on_message(Link& link, ByteView body) {
  auto decoded = protocol::decode(body);
  if (!decoded.ok()) {
    turn_away(link, decoded.status());
    return;
  }
  protocol::Message message = decoded.take();
  if (introduces(message)) {
    // Each connection is one peer's: what comes on it later needs no name.
    const PeerId peer = introduction(message);
    if (!peer || (link.peer && link.peer != peer)) {
      turn_away(link, Status(Code::protocol_violation, "it introduced itself as somebody else"));
      return;
    }
    if (!link.peer && bound_.size() >= bound_max && !bound_.contains(peer)) {
      turn_away(link, Status(Code::limit_exceeded, "the coordinator has too many peers"));
      return;
    }
    if (!link.peer) bind(link, peer);
    if (auto* hello = std::get_if<protocol::Hello>(&message)) {
      complete_addresses(hello->member.addresses, link.connection->remote_address());
    }
  } else if (!link.peer) {
    turn_away(link, Status(Code::protocol_violation, "it did not introduce itself"));
    return;
  }
  machine_->receive(clock_.now(), link.peer, message);
  run_effects();
}

void CoordinatorHost::bind(Link& link, PeerId peer) {
  auto owned = take(link);
  owned->ended = false;
  if (const auto former = bound_.find(peer); former != bound_.end()) {
    // The machine learns of both at once, from the message that comes with the new one.
    Link& old = *former->second;
    old.connection->close();
    ended_links_.push_back(take(old));
  }
  owned->peer = peer;
  bound_.emplace(peer, std::move(owned));
}

// Whoever does not speak the protocol: told why, in case that it understands this much, and closed.
void CoordinatorHost::turn_away(Link& link, const Status& why) {
  const std::string text =
      "a connection from " + link.connection->remote_address() + " was closed: " + why.reason();
  const PeerId peer = link.peer;
  if (peer) {
    say(LogLevel::warning, text + " (peer " + to_string(peer) + ")");
  } else {
    say_of_stranger(text);
  }
  auto owned = take(link);
  owned->connection->send_message(protocol::encode(protocol::NotAdmitted{why}));
  farewell(std::move(owned));
  if (peer && machine_) machine_->disconnected(clock_.now(), peer);
  run_effects();
}

// Kept for a moment after its last message: closing at once could reset the connection before the
// other side has read it.
void CoordinatorHost::farewell(std::unique_ptr<Link> link) {
  link->ended = true;
  link->deadline = clock_.now() + options_.farewell_limit;
  link->connection->flush();
  link->connection->finish();
  if (leaving_.size() >= leaving_max) {
    ended_links_.push_back(std::move(leaving_.front()));
    leaving_.pop_front();
  }
  leaving_.push_back(std::move(link));
}

void CoordinatorHost::on_closed(Link& link, const Status& status) {
  const PeerId peer = link.peer;
  if (status.code() == Code::protocol_violation) {
    const std::string text = "a connection from " + link.connection->remote_address() +
                             " was closed: " + status.reason();
    if (peer) say(LogLevel::warning, text + " (peer " + to_string(peer) + ")");
    if (!peer) say_of_stranger(text);
  }
  ended_links_.push_back(take(link));
  if (peer && machine_) machine_->disconnected(clock_.now(), peer);
  run_effects();
}

// ---- effects
void CoordinatorHost::run_effects() {
  // Applying one may call back in here; those effects come behind the ones that are under way.
  if (running_effects_) return;
  running_effects_ = true;
  while (machine_ && !machine_->outbox.empty()) {
    auto effects = std::exchange(machine_->outbox, {});
    for (auto& effect : effects) {
      std::visit([this](auto& each) { apply(each); }, effect);
      if (!machine_) break;  // what stands behind a view that can't be written is not said
    }
  }
  running_effects_ = false;
}

void CoordinatorHost::apply(protocol::SendTo& effect) {
  // The machine may learn of a broken connection later than this.
  const auto link = bound_.find(effect.to);
  if (link == bound_.end()) return;
  link->second->written = true;
  link->second->connection->send_message(protocol::encode(effect.message));
}

void CoordinatorHost::apply(protocol::Persist& effect) {
  // The one place where this layer may wait: nothing may overtake the disk.
  const Status status = store_.write(effect.state);
  if (!status.ok()) {
    begin_again_later(status);
    return;
  }
  durable_ = std::move(effect.state);
}

void CoordinatorHost::apply(protocol::Probe& effect) {
  if (const auto former = probes_.find(effect.peer); former != probes_.end()) {
    former->second->concluded = true;
    ended_probes_.push_back(std::move(former->second));
    probes_.erase(former);
  }
  const Time now = clock_.now();
  if (effect.addresses.empty()) {
    machine_->probed(now, effect.peer, protocol::ProbeResult::unreachable);
    return;
  }
  auto probing = std::make_unique<Probing>(*this, effect.peer, now + options_.probe_limit);
  // All of them before the first one dials: how many there are decides what a failure means.
  for (std::size_t i = 0; i < effect.addresses.size(); ++i) {
    probing->dials.push_back(std::make_unique<Dial>(*probing));
  }
  for (std::size_t i = 0; i < effect.addresses.size(); ++i) {
    Dial& dial = *probing->dials[i];
    dial.stream = network_.dial(effect.addresses[i], &dial);
  }
  probes_.emplace(effect.peer, std::move(probing));
}

void CoordinatorHost::conclude(PeerId peer, protocol::ProbeResult result) {
  auto node = probes_.extract(peer);
  PYCCL_ASSERT(!node.empty());
  node.mapped()->concluded = true;
  for (const auto& dial : node.mapped()->dials) dial->stream->close();
  ended_probes_.push_back(std::move(node.mapped()));
  if (machine_) machine_->probed(clock_.now(), peer, result);
  run_effects();
}

void CoordinatorHost::apply(protocol::Disconnect& effect) {
  const auto link = bound_.find(effect.peer);
  if (link == bound_.end()) return;
  say(LogLevel::debug,
      "connection to peer " + to_string(effect.peer) + " closed: " + effect.reason);
  farewell(take(*link->second));
}

void CoordinatorHost::apply(protocol::CoordinatorNote& effect) {
  say(LogLevel::info, std::move(effect.text));
}

// ---- log
void CoordinatorHost::say(LogLevel level, std::string text) {
  log.push_back({level, std::move(text)});
}

void CoordinatorHost::say_of_stranger(const std::string& text) {
  const Time now = clock_.now();
  if (now - stranger_window_ >= 1s) {
    if (stranger_lines_held_ > 0) {
      say(LogLevel::warning,
          std::to_string(stranger_lines_held_) + " more connections of strangers were closed");
    }
    stranger_window_ = now;
    stranger_lines_ = 0;
    stranger_lines_held_ = 0;
  }
  if (++stranger_lines_ > stranger_lines_per_second) {
    ++stranger_lines_held_;
  } else {
    say(LogLevel::warning, text);
  }
}

}  // namespace pyccl::engine
