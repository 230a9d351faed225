// See lanes.hpp.
#include "transport/lanes.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "transport/lending.hpp"

namespace pyccl::transport::test {

class BreakableNetwork::Wrapped final : public Stream, private Lending {
 public:
  Wrapped(BreakableNetwork& network, std::unique_ptr<Stream> inner)
      : network_(network), inner_(std::move(inner)) {
    network_.streams_.push_back(this);
  }
  ~Wrapped() override { std::erase(network_.streams_, this); }
  void set_observer(StreamObserver* observer) override { inner_->set_observer(observer); }
  IoResult write(std::span<const ByteView> parts) override;
  IoResult read(std::span<const MutableByteView> parts) override { return inner_->read(parts); }
  void watch_writable(bool on) override { inner_->watch_writable(on); }
  void watch_readable(bool on) override { inner_->watch_readable(on); }
  void end_writes() override { inner_->end_writes(); }
  void close() override { inner_->close(); }
  void fail(Status reason) override { inner_->fail(std::move(reason)); }
  std::string remote_address() const override { return inner_->remote_address(); }
  bool same_host() const override { return inner_->same_host(); }
  Lending* lending() override { return inner_->lending() == nullptr ? nullptr : this; }

 private:
  bool lends(std::size_t bytes) const override { return inner_->lending()->lends(bytes); }
  Loan lend(std::size_t bytes) override { return inner_->lending()->lend(bytes); }
  void cancel(Loan loan) override { inner_->lending()->cancel(loan); }
  bool settle(Loan loan) override { return inner_->lending()->settle(loan); }
  void revoke(Loan loan) override { inner_->lending()->revoke(loan); }
  Taken take(const Reference& reference, std::span<const MutableByteView> to) override {
    Reference copy = reference;
    if (network_.spoils_) copy.pieces[copy.count - 1].address = 1;
    return inner_->lending()->take(copy, to);
  }
  void decline(Loan loan) override { inner_->lending()->decline(loan); }

  BreakableNetwork& network_;
  std::unique_ptr<Stream> inner_;
};

IoResult BreakableNetwork::Wrapped::write(std::span<const ByteView> parts) {
  std::optional<std::size_t>& flip = network_.flip_in_;
  if (!flip) return inner_->write(parts);
  Bytes all;
  for (const ByteView& part : parts) all.insert(all.end(), part.begin(), part.end());
  if (*flip < all.size()) all[*flip] ^= std::byte{16};
  const std::array<ByteView, 1> one{ByteView(all)};
  const IoResult result = inner_->write(one);
  if (*flip < result.bytes) {
    flip.reset();
  } else {
    *flip -= result.bytes;
  }
  return result;
}

std::unique_ptr<Stream> BreakableNetwork::dial(const std::string& address,
                                               StreamObserver* observer) {
  return std::make_unique<Wrapped>(*this, inner_.dial(address, observer));
}

Result<std::unique_ptr<Listener>> BreakableNetwork::listen(const std::string& address,
                                                           AcceptObserver* observer) {
  PYCCL_ASSERT(observer_ == nullptr || observer_ == observer);
  observer_ = observer;
  return inner_.listen(address, this);
}

void BreakableNetwork::on_accepted(std::unique_ptr<Stream> stream) {
  observer_->on_accepted(std::make_unique<Wrapped>(*this, std::move(stream)));
}

void BreakableNetwork::break_one(std::size_t index) {
  streams_[index % streams_.size()]->fail({Code::io, "broken by the test"});
}

SegmentHeader segment_header(std::uint32_t seq, std::uint32_t length) {
  SegmentHeader header;
  header.op.epoch = {7, seq};
  header.op.key.group = {0xabcd};
  header.op.key.tag = 3;
  header.op.key.seq = seq;
  header.part = static_cast<std::uint16_t>(seq % 12);
  header.step = static_cast<std::uint16_t>(seq % 1000);
  header.offset = std::uint64_t{seq} << 32;
  header.length = length;
  return header;
}

LanePeer::LanePeer(Harness& harness, Network& network, PeerId other, const ChannelOptions& options)
    : harness_(harness), network_(network), other_(other) {
  ChannelOptions own = options;
  own.peer = other;
  channel = make_stream_channel(own, this);
}

void LanePeer::listen() {
  auto result = network_.listen(harness_.host(), this);
  REQUIRE(result.ok());
  listener_ = result.take();
}

void LanePeer::dial(const std::string& address) {
  handshakes_.push_back(Connection::dial(network_, address, this));
}

void LanePeer::on_accepted(std::unique_ptr<Stream> stream) {
  handshakes_.push_back(Connection::accepted(std::move(stream), this));
}

void LanePeer::on_open(Connection& connection) {
  connection.send_message(std::as_bytes(std::span("hello")));
}

// The listener adopts on hello, the dialler on welcome.
void LanePeer::on_message(Connection& connection, ByteView body) {
  const bool hello = body.size() == sizeof "hello";
  CHECK((hello || body.size() == sizeof "welcome"));
  if (hello) connection.send_message(std::as_bytes(std::span("welcome")));
  adopt(connection);
}

void LanePeer::adopt(Connection& connection) {
  const auto found = std::find_if(handshakes_.begin(), handshakes_.end(),
                                  [&](const auto& held) { return held.get() == &connection; });
  REQUIRE(found != handshakes_.end());
  auto held = std::move(*found);
  handshakes_.erase(found);
  channel->adopt(std::move(held));
}

void LanePeer::on_closed(Connection& connection, Status status) {
  closed.push_back(std::move(status));
  std::erase_if(handshakes_, [&](const auto& held) { return held.get() == &connection; });
}

void LanePeer::send_segment(std::uint32_t seq, std::uint32_t length, std::size_t pieces) {
  const Bytes all = pattern(length, seq);
  std::vector<Bytes>& parts = outgoing_[seq];
  Pieces list;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t rest = length - begin;
    const std::size_t end = i + 1 == pieces ? length : begin + rest / (2 + i);
    parts.emplace_back(all.begin() + std::ptrdiff_t(begin), all.begin() + std::ptrdiff_t(end));
    begin = end;
  }
  for (const Bytes& part : parts) list.push(part);
  channel->send_segment(segment_header(seq, length), list);
}

void LanePeer::drop(std::uint32_t seq) {
  channel->forget(segment_header(seq, 0).op);
  for (Bytes& part : outgoing_[seq]) std::fill(part.begin(), part.end(), std::byte{0xdd});
  outgoing_.erase(seq);
}

void LanePeer::send_text(const std::string& text) {
  channel->send_message(std::as_bytes(std::span(text)));
}

void LanePeer::on_segment(PeerId from, const SegmentHeader& header, ReadToken token,
                          MutablePieces& target) {
  CHECK(from == other_);
  CHECK(token != 0);
  CHECK(!reading_.contains(token));
  const std::uint32_t seq = header.op.key.seq;
  const SegmentHeader expected = segment_header(seq, header.length);
  CHECK(header.op == expected.op);
  CHECK(header.part == expected.part);
  CHECK(header.step == expected.step);
  CHECK(header.offset == expected.offset);
  if (header.empty || header.length == 0) {
    ++segments[seq];
    return;
  }
  Reading& reading = reading_[token];
  reading.seq = seq;
  reading.memory.resize(header.length);
  // In pieces of uneven sizes, a different number of them each time.
  const std::size_t pieces = 1 + seq % pieces_max;
  MutableByteView rest(reading.memory);
  for (std::size_t i = 0; i + 1 < pieces; ++i) {
    const std::size_t size = rest.size() / (2 + i);
    target.push(rest.first(size));
    rest = rest.subspan(size);
  }
  target.push(rest);
  if (when_segment) when_segment(header, token);
}

void LanePeer::on_segment_end(PeerId from, const SegmentHeader& header, ReadToken token,
                              bool complete) {
  CHECK(from == other_);
  const auto found = reading_.find(token);
  REQUIRE(found != reading_.end());
  const Reading reading = std::move(found->second);
  reading_.erase(found);
  CHECK(reading.seq == header.op.key.seq);
  if (complete) {
    CHECK(same_bytes(reading.memory, pattern(header.length, reading.seq)));
    ++segments[reading.seq];
  } else {
    ++incomplete;
  }
  if (when_segment_end) when_segment_end();
}

void LanePeer::on_message(PeerId from, ByteView body) {
  CHECK(from == other_);
  ++texts[std::string(reinterpret_cast<const char*>(body.data()), body.size())];
  if (when_message) when_message();
}

void LanePeer::on_room(PeerId to) {
  CHECK(to == other_);
  CHECK(channel->has_room());
  ++rooms;
  if (when_room) when_room();
}

void LanePeer::on_connections(PeerId peer, std::size_t open) {
  CHECK(peer == other_);
  CHECK(channel->connections() == open);
  connection_counts.push_back(open);
  if (when_connections) when_connections();
}

Lane::Lane(Harness& h, std::size_t connections, const ChannelOptions& options)
    : harness(h),
      network(h.network()),
      left(h, network, PeerId{2}, options),
      right(h, network, PeerId{1}, options) {
  right.listen();
  connect(connections);
}

void Lane::connect(std::size_t connections) {
  const std::size_t wanted = std::max(left.channel->connections(), right.channel->connections());
  for (std::size_t i = 0; i < connections; ++i) left.dial(right.address());
  REQUIRE(until([&] {
    return left.channel->connections() >= wanted + connections &&
           right.channel->connections() >= wanted + connections;
  }));
}

void Lane::turn() {
  std::optional<Time> deadline = harness.now() + 20ms;
  for (LanePeer* peer : {&left, &right}) {
    peer->channel->flush();
    deadline = earlier(deadline, peer->channel->next_deadline());
  }
  harness.step(*deadline);
  for (LanePeer* peer : {&left, &right}) {
    const auto due = peer->channel->next_deadline();
    if (due && *due <= harness.now()) peer->channel->tick(harness.now());
  }
}

bool Lane::until(const std::function<bool()>& done) {
  const Time give_up = harness.now() + 30s;
  while (!done()) {
    if (harness.now() > give_up) return false;
    turn();
  }
  return true;
}

}  // namespace pyccl::transport::test
