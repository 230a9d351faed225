// Dialling with backoff, and what is thrown away when a connection is given up.
#include "engine/coordinator_link.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "protocol/codec.hpp"

namespace pyccl::engine {
namespace {

constexpr Duration backoff_first = 20ms;
constexpr Duration backoff_last = 500ms;
constexpr Duration dial_limit = 3s;

}  // namespace

CoordinatorLink::CoordinatorLink(CoordinatorLinkHost& host, transport::Network& network,
                                 const Clock& clock, std::vector<std::string> addresses,
                                 std::uint64_t seed)
    : host_(host),
      network_(network),
      clock_(clock),
      addresses_(std::move(addresses)),
      prng_(seed),
      backoff_(backoff_first) {
  PYCCL_ASSERT(!addresses_.empty());
}

void CoordinatorLink::start() {
  next_dial_ = clock_.now();
  tick();
}

void CoordinatorLink::send(const protocol::Message& message) {
  if (connected_) connection_->send_message(protocol::encode(message));
}

void CoordinatorLink::redial(const std::string& reason) {
  if (ended_ || connection_ == nullptr) return;
  drop(Status(Code::io, reason));
}

void CoordinatorLink::drop(const Status& reason) {
  if (connection_ != nullptr) {
    connection_->close();
    dropped_.push_back(std::move(connection_));
  }
  connection_.reset();
  last_failure_ = reason;
  const bool was_connected = std::exchange(connected_, false);
  if (ended_) return;
  ++next_address_;
  const auto spread = static_cast<std::uint64_t>(backoff_.count()) / 2;
  next_dial_ =
      clock_.now() + backoff_ + Duration(static_cast<std::int64_t>(prng_.below(spread + 1)));
  backoff_ = std::min(2 * backoff_, backoff_last);
  if (was_connected) host_.coordinator_disconnected(reason);
}

void CoordinatorLink::finish() {
  ended_ = true;
  if (connection_ != nullptr && connected_) {
    connection_->finish();
  } else {
    close();
  }
}

void CoordinatorLink::close() {
  ended_ = true;
  connected_ = false;
  if (connection_ != nullptr) connection_->close();
}

Status CoordinatorLink::why_not_admitted() const {
  if (!connected_ || !answered_) {
    const std::string& why = last_failure_.reason();
    return Status(Code::coordinator_unavailable,
                  "no coordinator at " + addresses_.front() + ": " +
                      (why.empty() ? "whoever listens there says nothing" : why));
  }
  return Status(Code::not_admitted,
                "the members have not reached a boundary: every one of them must call update()");
}

void CoordinatorLink::flush() {
  dropped_.clear();
  if (connection_ != nullptr && connected_) connection_->flush();
}

void CoordinatorLink::tick() {
  if (ended_) return;
  const Time now = clock_.now();
  if (connection_ != nullptr) {
    if (!connected_ && dial_deadline_ <= now) drop(Status(Code::timeout, "no answer"));
    return;
  }
  if (next_dial_ > now) return;
  dial_deadline_ = now + dial_limit;
  connection_ =
      transport::Connection::dial(network_, addresses_[next_address_ % addresses_.size()], this);
}

std::optional<Time> CoordinatorLink::next_deadline() const {
  if (ended_) return std::nullopt;
  if (connection_ == nullptr) return next_dial_;
  if (!connected_) return dial_deadline_;
  return std::nullopt;
}

void CoordinatorLink::on_open(transport::Connection&) {
  connected_ = true;
  answered_ = false;
  backoff_ = backoff_first;
  host_.coordinator_connected();
}

void CoordinatorLink::on_message(transport::Connection&, ByteView body) {
  const Result<protocol::Message> message = protocol::decode(body);
  if (!message.ok()) {
    drop(message.status());
    return;
  }
  answered_ = true;
  host_.coordinator_message(message.value());
}

void CoordinatorLink::on_closed(transport::Connection&, Status status) { drop(status); }

}  // namespace pyccl::engine
