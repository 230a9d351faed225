// Flights, arrivals, acknowledgements and ends; see network_socket.hpp.
#include "sim/network_socket.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/assert.hpp"

namespace pyccl::sim {

namespace {

constexpr Duration retry_first = 1s;
constexpr Duration retry_last = 4s;

Status io(std::string text) { return {Code::io, std::move(text)}; }
Status reset_status() { return io("reset by the other side"); }

}  // namespace

Socket::Socket(SimulatedHost& host, std::uint64_t id, std::string remote_host,
               std::string remote_address)
    : host_(host),
      id_(id),
      remote_host_(std::move(remote_host)),
      remote_address_(std::move(remote_address)) {
  progress_ = heard_ = now();
}

// ---- the process's calls
void Socket::set_observer(transport::StreamObserver* observer) {
  observer_ = observer;
  touch();
}

std::size_t Socket::room() const {
  const std::size_t most = network().options().buffer_bytes;
  return most - std::min(most, unacknowledged_);
}

transport::IoResult Socket::write(std::span<const ByteView> parts) {
  if (state_ == State::closed) return {0, {Code::closed, "the stream is closed"}};
  if (state_ == State::failed) return {0, reset_status()};
  if (writes_ended_) return {0, {Code::closed, "the stream takes no more"}};
  if (state_ == State::connecting) return {};
  std::size_t offered = 0;
  for (const ByteView& part : parts) offered += part.size();
  const std::size_t taken = network().part_of(std::min(offered, room()));
  Bytes bytes;
  bytes.reserve(taken);
  for (const ByteView& part : parts) {
    const std::size_t step = std::min(part.size(), taken - bytes.size());
    bytes.insert(bytes.end(), part.begin(), part.begin() + static_cast<std::ptrdiff_t>(step));
  }
  if (taken == 0) return {};
  if (unacknowledged_ == 0) progress_ = now();
  unacknowledged_ += taken;
  sent_ += taken;
  if (!timed_) timed_ = {sent_, now()};
  network().bytes_written_ += taken;
  for (std::size_t done = 0; done < taken;) {
    const auto from = bytes.begin() + static_cast<std::ptrdiff_t>(done);
    const std::size_t step = network().piece_of(taken, done);
    launch(Bytes(from, from + static_cast<std::ptrdiff_t>(step)));
    done += step;
  }
  return {taken, {}};
}

transport::IoResult Socket::read(std::span<const MutableByteView> parts) {
  if (state_ == State::closed) return {0, {Code::closed, "the stream is closed"}};
  std::size_t offered = 0;
  for (const MutableByteView& part : parts) offered += part.size();
  const std::size_t there = received_.size() - read_upto_;
  if (there == 0) return {0, ended_ ? end_ : Status()};
  const std::size_t taken = network().part_of(std::min(offered, there));
  std::size_t done = 0;
  for (const MutableByteView& part : parts) {
    const std::size_t step = std::min(part.size(), taken - done);
    if (step > 0) std::memcpy(part.data(), received_.data() + read_upto_ + done, step);
    done += step;
  }
  read_upto_ += taken;
  if (read_upto_ == received_.size()) {
    received_.clear();
    read_upto_ = 0;
  }
  // There may be room for what waits at the other side.
  if (const auto sender = peer()) sender->resolicit();
  return {taken, {}};
}

void Socket::watch_writable(bool on) {
  watches_writable_ = on;
  if (on) touch();
}

void Socket::watch_readable(bool on) {
  watches_readable_ = on;
  if (on) touch();
}

void Socket::end_writes() {
  if (state_ == State::open && !std::exchange(writes_ended_, true)) launch({});
}

void Socket::close() {
  tell_failed_.reset();
  end_here();
  if (finished()) network().retire(id_);
}

void Socket::end_here() {
  const State before = std::exchange(state_, State::closed);
  if (before == State::open) {
    // Closing with unread bytes resets the stream and takes what is on its way along.
    if (received_.size() > read_upto_) {
      send_reset();
    } else if (!writes_ended_) {
      launch({});  // the orderly end
    }
  }
  received_.clear();
  read_upto_ = 0;
}

void Socket::fail(Status reason) {
  tell_failed_ = std::move(reason);
  end_here();
  touch();
}

// ---- a turn of the host
bool Socket::ready() const {
  if (observer_ == nullptr) return false;
  if (tell_failed_) return true;
  if (state_ == State::closed || state_ == State::connecting) return false;
  if (tell_connected_ || state_ == State::failed) return true;
  if (watches_readable_ && (received_.size() > read_upto_ || ended_)) return true;
  return watches_writable_ && room() > 0;
}

void Socket::call_observer() {
  const auto self = shared_from_this();
  if (tell_failed_) {
    const Status status = *std::exchange(tell_failed_, std::nullopt);
    state_ = State::closed;
    if (finished()) network().retire(id_);
    observer_->on_failed(status);
    return;
  }
  if (std::exchange(tell_connected_, false)) {
    observer_->on_connected();
    return;
  }
  if (state_ == State::failed && !watches_readable_) {
    state_ = State::closed;
    observer_->on_failed(end_);
    return;
  }
  if (watches_readable_ && (received_.size() > read_upto_ || ended_)) observer_->on_readable();
  if (observer_ == nullptr || state_ != State::open) return;
  if (watches_writable_ && room() > 0) observer_->on_writable();
}

// ---- coming to life
void Socket::dial(std::uint16_t port) {
  dialled_ = true;
  solicit(port, 0);
}

void Socket::solicit(std::uint16_t port, std::uint32_t attempt) {
  auto self = shared_from_this();
  const Duration there = network().latency(host_.name(), remote_host_);
  network().clock().after(there, [self, port, attempt] { self->solicited(port, attempt); });
}

void Socket::solicited(std::uint16_t port, std::uint32_t attempt) {
  if (state_ != State::connecting) return;
  if (!network().passes(host_.name(), remote_host_)) return solicit_again(port, attempt);
  SimulatedHost& remote = *network().find_host(remote_host_);
  auto self = shared_from_this();
  const auto listening = remote.listeners_.find(port);
  if (listening != remote.listeners_.end()) {
    const std::string address = host_.name() + ":" + std::to_string(host_.next_port_++);
    auto accepted = network().make_socket(remote, host_.name(), address);
    accepted->open_with(self);
    peer_ = accepted;
    remote.announce(port, accepted);
    return accepted->answer(self);
  }
  const Duration back = network().latency(remote_host_, host_.name());
  network().clock().after(back, [self, port, attempt] {
    if (self->state_ != State::connecting) return;
    if (!self->network().passes(self->remote_host_, self->host_.name())) {
      return self->solicit_again(port, attempt);
    }
    self->break_off(io("connecting to " + self->remote_address_ + ": refused"));
  });
}

void Socket::solicit_again(std::uint16_t port, std::uint32_t attempt) {
  auto self = shared_from_this();
  if (now() - progress_ >= network().options().silence_limit) return break_off(io("timed out"));
  const Duration pause = std::min(retry_first * (1 << std::min(attempt, 4u)), retry_last);
  network().clock().after(pause, [self, port, attempt] { self->solicit(port, attempt + 1); });
}

// The accepting end's answer; until it arrives the dialling one does not know of its luck.
void Socket::answer(const std::shared_ptr<Socket>& dialler) {
  auto self = shared_from_this();
  const Duration there = network().latency(host_.name(), remote_host_);
  network().clock().after(there, [self, dialler] {
    if (dialler->state_ != State::connecting) return self->break_off(reset_status());
    if (self->network().passes(self->host_.name(), self->remote_host_)) {
      return dialler->open_with(self);
    }
    if (dialler->now() - dialler->progress_ >= self->network().options().silence_limit) {
      return dialler->break_off(io("timed out"));
    }
    self->network().clock().after(retry_first, [self, dialler] { self->answer(dialler); });
  });
}

void Socket::open_with(const std::shared_ptr<Socket>& peer) {
  peer_ = peer;
  state_ = State::open;
  tell_connected_ = dialled_;
  progress_ = heard_ = now();
  touch();
  peer->resolicit();  // it may have been faster than its own answer
  start_watchdog();
}

// ---- bytes on their way
void Socket::launch(Bytes bytes) {
  const auto size = static_cast<std::int64_t>(bytes.size());
  const auto rate = static_cast<std::int64_t>(network().options().bytes_per_second);
  bool waited = link_free_ > now();
  link_free_ = std::max(link_free_, now()) + Duration(size * 1'000'000'000 / rate);
  const Time arrival =
      network().arrival(host_.name(), remote_host_, link_free_, bytes.size(), waited);
  last_arrival_ = std::max({last_arrival_, arrival, clogged_until_});
  flight_.push_back({last_arrival_, waited, false, std::move(bytes)});
  schedule_arrival(last_arrival_);
}

void Socket::schedule_arrival(Time when) {
  if (arrival_scheduled_ || flight_.empty()) return;
  arrival_scheduled_ = true;
  auto self = shared_from_this();
  network().clock().at(std::max(when, flight_.front().arrival), [self] {
    self->arrival_scheduled_ = false;
    self->arrive();
  });
}

void Socket::resolicit() {
  if (acknowledgement_owed_) acknowledge();
  schedule_arrival(now() + network().latency(host_.name(), remote_host_));
}

void Socket::arrive() {
  if (flight_.empty() || !network().passes(host_.name(), remote_host_)) return;
  if (flight_.front().arrival > now()) return schedule_arrival(now());
  const auto to = peer();
  if (to != nullptr && to->state_ == State::connecting) return;
  if (Piece& first = flight_.front(); !std::exchange(first.entered, true)) {
    first.arrival = network().entry(remote_host_, first.bytes.size(), first.waited);
    if (first.arrival > now()) return schedule_arrival(now());
  }
  const bool orderly_end = flight_.front().bytes.empty();
  if (to == nullptr || !to->living()) {
    if (!orderly_end) arrive_at_nobody();
    flight_.clear();
  } else {
    if (to->received_.size() - to->read_upto_ >= network().options().buffer_bytes) return;
    full_ = full_ || (flight_.front().waited && flight_.size() > 1);
    const Bytes bytes = std::move(flight_.front().bytes);
    flight_.pop_front();
    to->received_.insert(to->received_.end(), bytes.begin(), bytes.end());
    to->arrived_ += bytes.size();
    if (orderly_end) {
      to->ended_ = true;
      to->end_ = io("closed by the other side");
    } else {
      to->acknowledge();
    }
    to->touch();
    schedule_arrival(now());
  }
  if (finished()) network().retire(id_);
}

// The remote kernel knows no such stream and says so.
void Socket::arrive_at_nobody() {
  auto self = shared_from_this();
  network().clock().after(network().latency(remote_host_, host_.name()), [self] {
    if (self->network().passes(self->remote_host_, self->host_.name())) {
      self->break_off(reset_status());
    }
  });
}

void Socket::acknowledge() {
  acknowledgement_owed_ = !network().passes(host_.name(), remote_host_);
  const auto to = peer();
  if (acknowledgement_owed_ || to == nullptr) return;
  network().clock().after(network().latency(host_.name(), remote_host_),
                          [to, total = arrived_] { to->acknowledged(total); });
}

void Socket::acknowledged(std::uint64_t total) {
  const std::uint64_t left = sent_ - total;
  if (left >= unacknowledged_) return;  // late news
  unacknowledged_ = left;
  progress_ = now();
  if (timed_ && total >= timed_->first) {
    const Duration took = now() - timed_->second;
    round_trip_ = round_trip_ == Duration::zero() ? took : std::min(round_trip_, took);
    timed_.reset();
  }
  if (watches_writable_) touch();
}

std::optional<transport::WayMeasurement> Socket::measurement() const {
  if (state_ != State::open || same_host()) return std::nullopt;
  return transport::WayMeasurement{round_trip_, sent_ - unacknowledged_, full_,
                                   flight_.size() > 1 && flight_.back().waited};
}

bool Socket::flip_bit(std::uint64_t choice) {
  if (flight_.empty() || flight_.front().bytes.empty()) return false;
  Bytes& bytes = flight_.front().bytes;
  bytes[choice / 8 % bytes.size()] ^= static_cast<std::byte>(1u << choice % 8);
  return true;
}

// ---- ends
void Socket::send_reset() {
  flight_.clear();
  const auto to = peer();
  if (to == nullptr) return;
  auto self = shared_from_this();
  network().clock().after(network().latency(host_.name(), remote_host_), [self, to] {
    if (self->network().passes(self->host_.name(), self->remote_host_)) {
      to->break_off(reset_status());
    }
  });
}

// What had arrived can still be read, what was on its way is lost.
void Socket::break_off(const Status& status) {
  const auto self = shared_from_this();
  flight_.clear();
  if (living()) {
    if (state_ == State::connecting) tell_failed_ = status;
    state_ = State::failed;
    ended_ = true;
    end_ = status;
    touch();
  }
  if (finished()) network().retire(id_);
}

void Socket::vanish() {
  const auto self = shared_from_this();
  flight_.clear();
  tell_failed_.reset();
  state_ = State::closed;
  network().retire(id_);
}

void Socket::start_watchdog() {
  auto self = shared_from_this();
  network().clock().after(network().options().silence_limit / 2, [self] { self->watch_over(); });
}

// What keepalive and the limit for unacknowledged bytes do.
void Socket::watch_over() {
  if (state_ != State::open) return;
  const Duration limit = network().options().silence_limit;
  if (unacknowledged_ > 0 && now() - progress_ >= limit) return break_off(io("timed out"));
  const std::string& here = host_.name();
  if (network().passes(here, remote_host_) && network().passes(remote_host_, here)) {
    heard_ = now();
    const auto to = peer();
    const bool nobody = to == nullptr || !to->living();
    if (nobody && !ended_ && (to == nullptr || to->flight_.empty())) {
      return break_off(reset_status());
    }
  } else if (now() - heard_ >= limit) {
    return break_off(io("timed out"));
  }
  start_watchdog();
}

}  // namespace pyccl::sim
