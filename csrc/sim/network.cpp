// Hosts, their turns, and the faults of the paths between them; see network.hpp.
#include "sim/network.hpp"

#include <algorithm>
#include <charconv>
#include <deque>
#include <optional>
#include <utility>

#include "base/assert.hpp"
#include "sim/network_socket.hpp"

namespace pyccl::sim {

namespace {

constexpr std::uint16_t first_port = 5000;

struct Place {
  std::string host;
  std::uint16_t port = 0;
};

std::optional<Place> parse(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return std::nullopt;
  Place place{address.substr(0, colon), 0};
  const char* end = address.data() + address.size();
  const auto [stop, error] = std::from_chars(address.data() + colon + 1, end, place.port);
  if (error != std::errc() || stop != end) return std::nullopt;
  return place;
}

// The process's handle: what it holds of a socket.
class SimulatedStream final : public transport::Stream {
 public:
  explicit SimulatedStream(std::shared_ptr<Socket> socket) : socket_(std::move(socket)) {}
  ~SimulatedStream() override {
    socket_->set_observer(nullptr);
    socket_->close();
  }
  void set_observer(transport::StreamObserver* observer) override {
    socket_->set_observer(observer);
  }
  transport::IoResult write(std::span<const ByteView> parts) override {
    return socket_->write(parts);
  }
  transport::IoResult read(std::span<const MutableByteView> parts) override {
    return socket_->read(parts);
  }
  void watch_writable(bool on) override { socket_->watch_writable(on); }
  void watch_readable(bool on) override { socket_->watch_readable(on); }
  void end_writes() override { socket_->end_writes(); }
  void close() override { socket_->close(); }
  void fail(Status reason) override { socket_->fail(std::move(reason)); }
  std::string remote_address() const override { return socket_->remote_address(); }
  bool same_host() const override { return socket_->same_host(); }
  std::optional<transport::WayMeasurement> measurement() const override {
    return socket_->measurement();
  }

 private:
  std::shared_ptr<Socket> socket_;
};

}  // namespace

struct SimulatedHost::Listening {
  std::uint16_t port = 0;
  transport::AcceptObserver* observer = nullptr;  // none: the process has stopped listening
  std::deque<std::shared_ptr<Socket>> callers;
};

class SimulatedHost::ListenerHandle final : public transport::Listener {
 public:
  ListenerHandle(SimulatedHost& host, std::string address, std::shared_ptr<Listening> listening)
      : host_(host), address_(std::move(address)), listening_(std::move(listening)) {}
  ~ListenerHandle() override {
    listening_->observer = nullptr;
    const auto found = host_.listeners_.find(listening_->port);
    // After a loss of power another process may listen there already.
    if (found != host_.listeners_.end() && found->second == listening_) {
      host_.listeners_.erase(found);
    }
    for (const auto& caller : std::exchange(listening_->callers, {})) caller->close();
  }
  std::string address() const override { return address_; }

 private:
  SimulatedHost& host_;
  std::string address_;
  std::shared_ptr<Listening> listening_;
};

SimulatedHost::SimulatedHost(SimulatedNetwork& network, std::string name)
    : network_(network), name_(std::move(name)), turn_([this] { poll(); }) {}

SimulatedHost::~SimulatedHost() = default;

std::unique_ptr<transport::Stream> SimulatedHost::dial(const std::string& address,
                                                       transport::StreamObserver* observer) {
  const auto place = parse(address);
  auto socket = network_.make_socket(*this, place ? place->host : name_, address);
  socket->set_observer(observer);
  if (place) {
    socket->dial(place->port);
  } else {
    socket->break_off({Code::io, "not an address: " + address});
  }
  return std::make_unique<SimulatedStream>(std::move(socket));
}

Result<std::unique_ptr<transport::Listener>> SimulatedHost::listen(
    const std::string& address, transport::AcceptObserver* observer) {
  auto place = parse(address);
  if (!place || (place->host != name_ && place->host != "0.0.0.0")) {
    return Status(Code::io, "no address of this host: " + address);
  }
  if (place->port == 0) {
    place->port = first_port;
    while (listeners_.contains(place->port)) ++place->port;
  }
  if (listeners_.contains(place->port)) {
    return Status(Code::address_in_use, "address " + address + " is already in use");
  }
  auto listening = std::make_shared<Listening>();
  listening->port = place->port;
  listening->observer = observer;
  listeners_.emplace(place->port, listening);
  return std::unique_ptr<transport::Listener>(std::make_unique<ListenerHandle>(
      *this, place->host + ":" + std::to_string(place->port), std::move(listening)));
}

void SimulatedHost::announce(std::uint16_t port, const std::shared_ptr<Socket>& caller) {
  listeners_.at(port)->callers.push_back(caller);
  callers_at_.insert(port);
  wake();
}

void SimulatedHost::accept_from(const std::shared_ptr<Listening>& listening) {
  while (listening->observer != nullptr && !listening->callers.empty()) {
    auto caller = std::move(listening->callers.front());
    listening->callers.pop_front();
    listening->observer->on_accepted(std::make_unique<SimulatedStream>(std::move(caller)));
  }
}

// ---- turns
void SimulatedHost::touch(std::uint64_t socket) {
  touched_.insert(socket);
  wake();
}

void SimulatedHost::wake() {
  if (turn_scheduled_ || paused_ || !up_) return;
  turn_scheduled_ = true;
  const auto spread = static_cast<std::uint64_t>(turn_delay_.count());
  const Duration delay(static_cast<std::int64_t>(1 + network_.prng().below(spread)));
  network_.clock().after(delay, [this] { run_turn(); });
}

void SimulatedHost::run_turn() {
  turn_scheduled_ = false;
  if (paused_ || !up_) return;
  turn_();
  if (!touched_.empty()) wake();
}

void SimulatedHost::poll() {
  for (const std::uint16_t port : std::exchange(callers_at_, {})) {
    const auto listening = listeners_.find(port);
    if (listening != listeners_.end()) accept_from(listening->second);
  }
  std::vector<std::uint64_t> order(touched_.begin(), touched_.end());
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[network_.prng().below(i)]);
  }
  for (const std::uint64_t id : order) {
    const auto socket = network_.find(id);
    if (socket != nullptr && socket->ready()) {
      if (network_.prng().chance(1, 6)) continue;  // not in this turn
      socket->call_observer();
      if (socket->ready()) continue;
    }
    touched_.erase(id);
  }
}

void SimulatedHost::resume() {
  paused_ = false;
  wake();
}

void SimulatedHost::kill() {
  for (auto& [port, listening] : std::exchange(listeners_, {})) listening->observer = nullptr;
  callers_at_.clear();
  touched_.clear();
  const auto sockets = network_.sockets_;
  for (const auto& [id, socket] : sockets) {
    if (&socket->host() == this && socket->state() != Socket::State::closed) socket->close();
  }
}

void SimulatedHost::power_off() {
  up_ = false;
  for (auto& [port, listening] : std::exchange(listeners_, {})) listening->observer = nullptr;
  callers_at_.clear();
  touched_.clear();
  const auto sockets = network_.sockets_;
  for (const auto& [id, socket] : sockets) {
    if (&socket->host() == this) socket->vanish();
  }
}

void SimulatedHost::power_on() {
  up_ = true;
  for (const auto& [name, host] : network_.hosts_) {
    network_.resolicit(name, name_);
    network_.resolicit(name_, name);
  }
}

std::size_t SimulatedHost::open_streams() const {
  return static_cast<std::size_t>(
      std::ranges::count_if(network_.sockets_, [this](const auto& entry) {
        return &entry.second->host() == this && entry.second->state() != Socket::State::closed;
      }));
}

// ---- the network
SimulatedNetwork::SimulatedNetwork(Clock& clock, std::uint64_t seed, const NetworkOptions& options)
    : clock_(clock), prng_(seed), options_(options) {
  PYCCL_ASSERT(options.buffer_bytes > 0 && options.bytes_per_second > 0);
}

SimulatedNetwork::~SimulatedNetwork() = default;

SimulatedHost& SimulatedNetwork::host(const std::string& name) {
  auto& host = hosts_[name];
  if (host == nullptr) host = std::make_unique<SimulatedHost>(*this, name);
  return *host;
}

SimulatedHost* SimulatedNetwork::find_host(const std::string& name) const {
  const auto found = hosts_.find(name);
  return found == hosts_.end() ? nullptr : found->second.get();
}

std::shared_ptr<Socket> SimulatedNetwork::make_socket(SimulatedHost& host, std::string remote_host,
                                                      std::string remote_address) {
  const std::uint64_t id = next_socket_++;
  auto socket =
      std::make_shared<Socket>(host, id, std::move(remote_host), std::move(remote_address));
  sockets_.emplace(id, socket);
  return socket;
}

std::shared_ptr<Socket> SimulatedNetwork::find(std::uint64_t socket) const {
  const auto found = sockets_.find(socket);
  return found == sockets_.end() ? nullptr : found->second;
}

void SimulatedNetwork::set_path(const std::string& a, const std::string& b, const Path& path) {
  for (const auto& way : {std::pair(a, b), std::pair(b, a)}) {
    paths_[way] = {path.latency, Gate{path.bytes_per_second, {}}};
  }
}

void SimulatedNetwork::set_host_rate(const std::string& host, std::uint64_t bytes_per_second) {
  host_gates_[host] = {Gate{bytes_per_second, {}}, Gate{bytes_per_second, {}}};
}

Time SimulatedNetwork::Gate::pass(Time from, std::uint64_t bytes, bool& waits) {
  if (bytes_per_second == 0) return from;
  waits = waits || free > from;
  free = std::max(free, from) +
         Duration(static_cast<std::int64_t>(bytes * 1'000'000'000 / bytes_per_second));
  return free;
}

Time SimulatedNetwork::arrival(const std::string& from, const std::string& to, Time sent,
                               std::uint64_t bytes, bool& waits) {
  if (const auto host = host_gates_.find(from); host != host_gates_.end()) {
    sent = host->second.first.pass(sent, bytes, waits);
  }
  if (const auto path = paths_.find({from, to}); path != paths_.end()) {
    sent = path->second.second.pass(sent, bytes, waits);
  }
  return sent + latency(from, to);
}

Time SimulatedNetwork::entry(const std::string& to, std::uint64_t bytes, bool& waits) {
  const auto host = host_gates_.find(to);
  if (host == host_gates_.end()) return clock_.now();
  return host->second.second.pass(clock_.now(), bytes, waits);
}

Duration SimulatedNetwork::usual_latency() {
  const auto spread =
      static_cast<std::uint64_t>((options_.latency_max - options_.latency_min).count());
  Duration delay =
      options_.latency_min + Duration(static_cast<std::int64_t>(prng_.below(spread + 1)));
  if (prng_.chance(options_.tail_percent, 100)) {
    const auto tail = static_cast<std::uint64_t>(options_.tail_max.count());
    delay += Duration(static_cast<std::int64_t>(prng_.below(tail + 1)));
  }
  return delay;
}

Duration SimulatedNetwork::latency(const std::string& from, const std::string& to) {
  const auto path = paths_.find({from, to});
  Duration delay = path != paths_.end() ? path->second.first : usual_latency();
  const auto clogged = clogged_.find({from, to});
  if (clogged != clogged_.end() && clogged->second > clock_.now()) {
    delay += clogged->second - clock_.now();
  }
  return delay;
}

// A byte at the least, so that level-triggered callers always get on.
std::size_t SimulatedNetwork::part_of(std::size_t bytes) {
  if (bytes < 2 || !prng_.chance(options_.split_percent, 100)) return bytes;
  return prng_.between(1, bytes);
}

// In two pieces at the most; where hosts have rates in small ones, which mix with others'.
std::size_t SimulatedNetwork::piece_of(std::size_t written, std::size_t done) {
  constexpr std::size_t small = 8 * 1024;
  if (!host_gates_.empty()) return std::min(small, written - done);
  return done == 0 ? part_of(written) : written - done;
}

bool SimulatedNetwork::passes(const std::string& from, const std::string& to) const {
  const SimulatedHost* source = find_host(from);
  const SimulatedHost* target = find_host(to);
  return source != nullptr && target != nullptr && source->up() && target->up() &&
         !blocked(from, to);
}

// ---- faults
void SimulatedNetwork::block(const std::string& from, const std::string& to) {
  blocked_.emplace(from, to);
}

bool SimulatedNetwork::blocked(const std::string& from, const std::string& to) const {
  return blocked_.contains({from, to});
}

void SimulatedNetwork::unblock(const std::string& from, const std::string& to) {
  if (blocked_.erase({from, to}) > 0) resolicit(from, to);
}

void SimulatedNetwork::unblock_all() {
  clogged_.clear();
  for (const auto& [from, to] : std::exchange(blocked_, {})) resolicit(from, to);
}

void SimulatedNetwork::resolicit(const std::string& from, const std::string& to) {
  const auto sockets = sockets_;
  for (const auto& [id, socket] : sockets) {
    if (socket->host().name() == from && socket->remote_host() == to) socket->resolicit();
  }
}

void SimulatedNetwork::clog(const std::string& from, const std::string& to, Time until) {
  clogged_[{from, to}] = until;
}

// The dialling ends of what is open between two hosts.
std::vector<std::shared_ptr<Socket>> SimulatedNetwork::dialled_between(const std::string& a,
                                                                       const std::string& b) {
  std::vector<std::shared_ptr<Socket>> found;
  for (const auto& [id, socket] : sockets_) {
    if (!socket->dialled() || socket->state() != Socket::State::open) continue;
    const std::string& here = socket->host().name();
    const std::string& there = socket->remote_host();
    if ((here == a && there == b) || (here == b && there == a)) found.push_back(socket);
  }
  return found;
}

bool SimulatedNetwork::clog_stream(const std::string& a, const std::string& b, std::uint64_t choice,
                                   Time until) {
  const auto streams = dialled_between(a, b);
  if (streams.empty()) return false;
  const auto& dialler = streams[choice % streams.size()];
  dialler->clog(until);
  if (const auto acceptor = dialler->peer()) acceptor->clog(until);
  return true;
}

bool SimulatedNetwork::flip_bit(const std::string& a, const std::string& b, std::uint64_t choice) {
  for (const auto& dialler : dialled_between(a, b)) {
    const auto acceptor = dialler->peer();
    if (dialler->flip_bit(choice)) return true;
    if (acceptor != nullptr && acceptor->flip_bit(choice)) return true;
  }
  return false;
}

bool SimulatedNetwork::break_stream(const std::string& a, const std::string& b,
                                    std::uint64_t choice, Break how) {
  const auto streams = dialled_between(a, b);
  if (streams.empty()) return false;
  const auto dialler = streams[choice % streams.size()];
  const auto acceptor = dialler->peer();
  const Status reset(Code::io, "reset by the other side");
  if (how != Break::acceptor) dialler->break_off(reset);
  if (how != Break::dialler && acceptor != nullptr) acceptor->break_off(reset);
  return true;
}

}  // namespace pyccl::sim
