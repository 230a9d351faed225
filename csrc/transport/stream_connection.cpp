// The two lives of a connection; see stream_connection.hpp.
#include "transport/stream_connection.hpp"

#include <array>
#include <utility>

namespace pyccl::transport {

namespace {

// What one turn may read from one stream before the others get theirs.
constexpr std::size_t read_budget = 1 << 20;
// What comes by reference is copied by who reads it, and as long as both only read, nobody lends.
constexpr std::size_t lending_read_budget = 256 * 1024;
constexpr std::size_t queue_bytes_max = 8 << 20;

}  // namespace

std::unique_ptr<Connection> Connection::dial(Network& network, const std::string& address,
                                             ConnectionObserver* observer) {
  return std::make_unique<StreamConnection>(network, address, observer);
}

std::unique_ptr<Connection> Connection::accepted(std::unique_ptr<Stream> stream,
                                                 ConnectionObserver* observer,
                                                 std::size_t first_message_bytes) {
  return std::make_unique<StreamConnection>(std::move(stream), observer, first_message_bytes);
}

StreamConnection::StreamConnection(Network& network, const std::string& address,
                                   ConnectionObserver* observer)
    : state_(State::connecting),
      observer_(observer),
      reader_(this),
      stream_(network.dial(address, this)) {}

StreamConnection::StreamConnection(std::unique_ptr<Stream> stream, ConnectionObserver* observer,
                                   std::size_t first_message_bytes)
    : state_(State::open),
      observer_(observer),
      first_message_bytes_(first_message_bytes),
      reader_(this),
      stream_(std::move(stream)) {
  writer_.checksum_payloads(!stream_->same_host());
  stream_->set_observer(this);
}

StreamConnection::~StreamConnection() { close(); }

void StreamConnection::send_message(ByteView body) {
  PYCCL_ASSERT(owner_ == nullptr);
  if (state_ == State::closed || finishing_ || write_failed_) return;
  if (body.size() > message_bytes_max) {
    write_failed_ = true;
    stream_->fail(message_too_long(body.size()));
    return;
  }
  if (own_bytes_ + body.size() > queue_bytes_max) {
    write_failed_ = true;
    stream_->fail({Code::limit_exceeded, "the other side does not read what it is sent"});
    return;
  }
  OutgoingFrame* frame = own_pool_.take();
  frame->kind = FrameKind::message;
  frame->pinned = true;
  frame->body.assign(body.begin(), body.end());
  frame->payload.push(frame->body);
  frame->length = static_cast<std::uint32_t>(body.size());
  own_.push_back(frame);
  own_bytes_ += body.size();
  if (state_ == State::open) stream_->watch_writable(true);
}

void StreamConnection::flush() {
  if (state_ == State::open && owner_ == nullptr) write_own();
}

void StreamConnection::finish() {
  if (state_ == State::closed) return;
  observer_ = nullptr;
  finishing_ = true;
  if (state_ == State::open) write_own();
}

void StreamConnection::close() {
  observer_ = nullptr;
  owner_ = nullptr;
  if (state_ == State::closed) return;
  state_ = State::closed;
  reader_.stop();
  stream_->close();
}

void StreamConnection::join(ConnectionOwner* owner, FramePool* pool, bool checksum_everywhere) {
  PYCCL_ASSERT(state_ == State::open && owner_ == nullptr && !finishing_);
  observer_ = nullptr;
  owner_ = owner;
  shared_pool_ = pool;
  writer_.keep_unacknowledged();
  writer_.lend_through(stream_->lending());
  writer_.checksum_payloads(checksum_everywhere || !stream_->same_host());
}

FrameWriter::Outcome StreamConnection::write(FrameList& messages, FrameList& segments,
                                             bool acknowledge) {
  const std::array<FrameList*, 3> queues{&own_, &messages, &segments};
  return write_from(queues, acknowledge);
}

FrameWriter::Outcome StreamConnection::write_from(std::span<FrameList* const> queues,
                                                  bool acknowledge) {
  if (!can_write()) return {};
  FrameWriter::Outcome outcome =
      writer_.write(*stream_, queues, pool(), reader_.frames(), acknowledge);
  // The reading side will tell, after it has delivered what had arrived.
  if (!outcome.status.ok()) write_failed_ = true;
  return outcome;
}

void StreamConnection::write_own() {
  const std::array<FrameList*, 1> queues{&own_};
  bool blocked = false;
  while (has_own() && can_write() && !blocked) {
    const FrameWriter::Outcome outcome = write_from(queues, false);
    own_bytes_ -= outcome.pinned_bytes;
    blocked = outcome.blocked;
  }
  const bool more = has_own() && can_write();
  stream_->watch_writable(more);
  if (finishing_ && !more) stream_->end_writes();
}

void StreamConnection::on_connected() {
  state_ = State::open;
  writer_.checksum_payloads(!stream_->same_host());
  if (finishing_) return write_own();
  Life::Watch watch(life_);
  observer_->on_open(*this);
  if (!watch.over()) flush();
}

void StreamConnection::on_readable() {
  Life::Watch watch(life_);
  Status status =
      reader_.read(*stream_, stream_->lending() == nullptr ? read_budget : lending_read_budget);
  if (watch.over() || state_ == State::closed) return;
  if (!status.ok()) {
    end(std::move(status));
  } else if (owner_ != nullptr) {
    owner_->on_read(*this);
  }
}

void StreamConnection::on_writable() {
  if (owner_ != nullptr) {
    owner_->on_writable(*this);
    return;
  }
  write_own();
}

void StreamConnection::on_failed(Status status) { end(std::move(status)); }

void StreamConnection::end(Status status) {
  if (state_ == State::closed) return;
  state_ = State::closed;
  stream_->close();
  Life::Watch watch(life_);
  reader_.abort();
  if (watch.over()) return;
  if (owner_ != nullptr) {
    std::exchange(owner_, nullptr)->on_closed(*this, std::move(status));
  } else if (observer_ != nullptr) {
    std::exchange(observer_, nullptr)->on_closed(*this, std::move(status));
  }
}

Status StreamConnection::on_header(const FrameHeader& header) {
  FrameList again;
  if (!writer_.acknowledged(header.acknowledged, pool(), again)) {
    return {Code::protocol_violation, "the other side acknowledges frames that were never sent"};
  }
  if (!again.empty() && owner_ != nullptr) owner_->on_unreadable(again);
  if (header.kind == FrameKind::segment && owner_ == nullptr && !finishing_) {
    return {Code::protocol_violation, "a segment arrived on a connection that carries none"};
  }
  if (header.length > first_message_bytes_ && reader_.frames() == 0) {
    return {Code::protocol_violation, "a first message of " + std::to_string(header.length) +
                                          " bytes where " + std::to_string(first_message_bytes_) +
                                          " are allowed"};
  }
  return {};
}

void StreamConnection::on_message(ByteView body) {
  if (owner_ != nullptr) {
    owner_->on_message(body);
  } else if (observer_ != nullptr) {
    observer_->on_message(*this, body);
  }
}

ReadToken StreamConnection::on_segment(const SegmentHeader& header, MutablePieces& target) {
  if (owner_ == nullptr) return 0;
  Life::Watch watch(life_);
  const ReadToken token = owner_->on_segment(header, target);
  if (watch.over() || token != 0 || state_ != State::open) return token;
  // Nothing more is read, and this frame is never acknowledged.
  reader_.stop();
  write_failed_ = true;
  stream_->fail({Code::limit_exceeded, "the other side sends more ahead than may be kept"});
  return 0;
}

void StreamConnection::on_segment_end(const SegmentHeader& header, ReadToken token, bool complete) {
  if (owner_ != nullptr) owner_->on_segment_end(header, token, complete);
}

}  // namespace pyccl::transport
