// Striping, acknowledgement and what happens when a connection dies; see stream_channel.hpp.
#include "transport/stream_channel.hpp"

#include <algorithm>
#include <utility>

#include "base/mark.hpp"

namespace pyccl::transport {

namespace {

// What one turn may write to one stream before reading gets its turn.
constexpr std::size_t write_budget = 1 << 20;
// Frames are acknowledged by any frame that goes back; without one, after so many or so long.
constexpr std::uint32_t acknowledge_after = 8;
constexpr Duration acknowledge_delay = 100ms;
// Messages that wait or that the other side has not acknowledged.
constexpr std::size_t message_bytes_limit = 64 << 20;

}  // namespace

std::unique_ptr<Channel> make_stream_channel(const ChannelOptions& options,
                                             ChannelObserver* observer) {
  return std::make_unique<StreamChannel>(options, observer);
}

StreamChannel::StreamChannel(const ChannelOptions& options, ChannelObserver* observer)
    : options_(options), observer_(observer) {
  PYCCL_ASSERT(options.segment_bytes > 0 && options.segment_bytes <= segment_bytes_max);
}

StreamChannel::~StreamChannel() { close({Code::closed, "the channel is destroyed"}); }

void StreamChannel::send_message(ByteView body) {
  if (closed_ || given_up_) return;
  if (body.size() > message_bytes_max) {
    give_up(message_too_long(body.size()));
    return;
  }
  std::uint64_t kept = message_bytes_ + body.size();
  for (const auto& connection : connections_) {
    kept += connection->writer().unacknowledged_message_bytes();
  }
  if (kept > message_bytes_limit) {
    give_up({Code::limit_exceeded, "the peer does not read the messages it is sent"});
    return;
  }
  const bool was_empty = !something_queued();
  OutgoingFrame* frame = pool_.take();
  frame->kind = FrameKind::message;
  frame->body.assign(body.begin(), body.end());
  frame->payload.push(frame->body);
  frame->length = static_cast<std::uint32_t>(body.size());
  messages_.push_back(frame);
  message_bytes_ += body.size();
  if (was_empty) wake();
}

void StreamChannel::send_segment(const SegmentHeader& header, const Pieces& pieces) {
  if (closed_ || given_up_) return;
  std::size_t bytes = 0;
  for (const ByteView& piece : pieces.view()) bytes += piece.size();
  PYCCL_ASSERT(bytes == (header.empty ? 0 : header.length) && header.length <= segment_bytes_max);
  const bool was_empty = !something_queued();
  OutgoingFrame* frame = pool_.take();
  frame->kind = FrameKind::segment;
  frame->segment = header;
  frame->payload = pieces;
  frame->length = static_cast<std::uint32_t>(bytes);
  segments_.push_back(frame);
  segment_bytes_ += bytes;
  if (!has_room()) room_wanted_ = true;
  if (was_empty) wake();
}

// Little waits here, so that what leaves next is decided late; enough that no connection idles.
bool StreamChannel::has_room() const {
  constexpr std::size_t frames_max = 256;
  return segment_bytes_ < std::size_t{2} * options_.segment_bytes && segments_.count() < frames_max;
}

void StreamChannel::forget(OpId op) {
  for (OutgoingFrame* frame = segments_.first(); frame != nullptr;) {
    OutgoingFrame* next = frame->next;
    if (frame->segment.op == op) {
      segment_bytes_ -= frame->length;
      pool_.give_back(segments_.remove(frame));
    }
    frame = next;
  }
  for (const auto& connection : connections_) connection->writer().forget(op);
  if (room_wanted_ && has_room()) wake();
}

void StreamChannel::redirect(ReadToken token) {
  if (token == 0 || PYCCL_MUTANT("redirect-ignored")) return;
  for (const auto& connection : connections_) {
    if (connection->reader().token() != token) continue;
    PYCCL_MARK("payload redirected while it is read");
    connection->reader().redirect();
  }
}

void StreamChannel::adopt(std::unique_ptr<Connection> connection) {
  auto* stream_connection = dynamic_cast<StreamConnection*>(connection.get());
  PYCCL_ASSERT(stream_connection != nullptr);
  if (closed_ || given_up_ || !stream_connection->open()) return;  // its destructor closes it
  (void)connection.release();
  connections_.emplace_back(stream_connection);
  stream_connection->join(this, &pool_, options_.checksum_everywhere);
  if (something_queued() || room_wanted_) stream_connection->watch_writable(true);
}

void StreamChannel::flush() {
  Life::Watch watch(life_);
  std::size_t total = 0;
  for (;;) {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      StreamConnection& connection = *connections_[i];
      if (something_queued() || connection.has_own()) {
        bytes += pump(connection, write_budget - total, false);
      } else {
        // Another one has taken what it was woken for.
        connection.watch_writable(false);
      }
    }
    if (!room_wanted_ || !has_room()) return;
    total += bytes;
    if (total >= write_budget || bytes == 0) return wake();
    // What has made room was taken at once, and so may be what comes into it.
    room_wanted_ = false;
    observer_->on_room(options_.peer);
    if (watch.over() || closed_) return;
  }
}

// Makes the loop call on_writable.
void StreamChannel::wake() {
  for (const auto& connection : connections_) {
    if (connection->can_write()) connection->watch_writable(true);
  }
}

std::size_t StreamChannel::pump(StreamConnection& connection, std::size_t budget,
                                bool acknowledge) {
  std::size_t total = 0;
  const auto pending = [&] {
    return connection.can_write() && (something_queued() || connection.has_own());
  };
  while (total < budget && (pending() || (acknowledge && connection.can_write()))) {
    const FrameWriter::Outcome outcome = connection.write(messages_, segments_, acknowledge);
    acknowledge = false;
    total += outcome.bytes;
    message_bytes_ -= outcome.message_bytes;
    segment_bytes_ -= outcome.segment_bytes;
    if (outcome.blocked) break;
  }
  connection.watch_writable(pending());
  return total;
}

void StreamChannel::on_message(ByteView body) {
  if (!closed_) observer_->on_message(options_.peer, body);
}

ReadToken StreamChannel::on_segment(const SegmentHeader& header, MutablePieces& target) {
  const ReadToken token = ++tokens_;
  Life::Watch watch(life_);
  observer_->on_segment(options_.peer, header, token, target);
  return !watch.over() && refused_ == token ? 0 : token;
}

void StreamChannel::on_segment_end(const SegmentHeader& header, ReadToken token, bool complete) {
  observer_->on_segment_end(options_.peer, header, token, complete);
}

void StreamChannel::on_read(StreamConnection& connection) {
  const bool due = connection.acknowledgement_owed() >= acknowledge_after;
  if (due && !something_queued()) pump(connection, write_budget, true);
}

void StreamChannel::on_writable(StreamConnection& connection) {
  Life::Watch watch(life_);
  std::size_t total = 0;
  do {
    const bool queued = something_queued();
    const std::size_t bytes = pump(connection, write_budget - total, false);
    total += bytes;
    if (!room_wanted_ || !has_room()) return;
    room_wanted_ = false;
    observer_->on_room(options_.peer);
    if (watch.over() || closed_ || (queued && bytes == 0)) return;
  } while (total < write_budget && something_queued());
}

void StreamChannel::on_unreadable(FrameList& frames) {
  while (!frames.empty()) {
    OutgoingFrame* frame = frames.pop_back();
    if (given_up_) {
      pool_.give_back(frame);
      continue;
    }
    segment_bytes_ += frame->length;
    segments_.push_front(frame);
  }
  if (!has_room()) room_wanted_ = true;
  wake();
}

void StreamChannel::on_closed(StreamConnection& connection, Status) {
  const auto returned = connection.writer().take_back(messages_, segments_, pool_);
  message_bytes_ += returned.message_bytes;
  segment_bytes_ += returned.segment_bytes;
  sent_before_ += connection.writer().bytes();
  received_before_ += connection.reader().bytes();
  std::erase_if(connections_, [&](const auto& held) { return held.get() == &connection; });
  if (!has_room()) room_wanted_ = true;  // what came back has taken it
  if (given_up_) drop_queues();
  if (something_queued()) wake();
  observer_->on_connections(options_.peer, connections_.size());
}

void StreamChannel::tick(Time now) {
  now_ = now;
  const bool owed = std::any_of(connections_.begin(), connections_.end(),
                                [](const auto& held) { return held->acknowledgement_owed() > 0; });
  if (!owed) {
    acknowledge_at_.reset();
  } else if (!acknowledge_at_) {
    acknowledge_at_ = now + acknowledge_delay;
  } else if (now >= *acknowledge_at_) {
    acknowledge_at_.reset();
    for (const auto& connection : connections_) {
      if (connection->acknowledgement_owed() > 0) pump(*connection, write_budget, true);
    }
  }
}

// Without a clock of its own the channel counts from its last tick; one that comes early only
// starts the delay.
std::optional<Time> StreamChannel::next_deadline() const {
  if (acknowledge_at_) return acknowledge_at_;
  for (const auto& connection : connections_) {
    if (connection->acknowledgement_owed() > 0) return now_ + acknowledge_delay;
  }
  return std::nullopt;
}

bool StreamChannel::same_host() const {
  return !connections_.empty() && std::all_of(connections_.begin(), connections_.end(),
                                              [](const auto& held) { return held->same_host(); });
}

std::uint64_t StreamChannel::bytes_sent() const {
  std::uint64_t sum = sent_before_;
  for (const auto& connection : connections_) sum += connection->writer().bytes();
  return sum;
}

std::uint64_t StreamChannel::bytes_received() const {
  std::uint64_t sum = received_before_;
  for (const auto& connection : connections_) sum += connection->reader().bytes();
  return sum;
}

std::optional<WayMeasurement> StreamChannel::measurement() const {
  std::optional<WayMeasurement> all;
  for (const auto& connection : connections_) {
    const auto one = connection->measurement();
    if (!one) continue;
    if (!all) all.emplace();
    all->delivered += one->delivered;
    all->full = all->full || one->full;
    all->waiting = all->waiting || one->waiting;
    if (one->round_trip == Duration::zero()) continue;
    const bool first = all->round_trip == Duration::zero();
    all->round_trip = first ? one->round_trip : std::min(all->round_trip, one->round_trip);
  }
  return all;
}

// A peer that lets messages pile up without end, or is to get one that can't be sent, can't be kept
// up with: losing some of them and going on would break what the protocol relies on.
void StreamChannel::give_up(const Status& why) {
  given_up_ = true;
  drop_queues();
  for (const auto& connection : connections_) connection->fail(why);
}

void StreamChannel::drop_queues() {
  while (!messages_.empty()) pool_.give_back(messages_.pop_front());
  while (!segments_.empty()) pool_.give_back(segments_.pop_front());
  message_bytes_ = segment_bytes_ = 0;
  room_wanted_ = false;
}

void StreamChannel::close(Status) {
  closed_ = true;
  for (const auto& connection : connections_) {
    sent_before_ += connection->writer().bytes();
    received_before_ += connection->reader().bytes();
    connection->close();
  }
  // A connection may be on the stack below us; destroying it is safe, see life.hpp.
  auto connections = std::exchange(connections_, {});
  connections.clear();
  drop_queues();
}

}  // namespace pyccl::transport
