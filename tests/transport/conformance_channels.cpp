// Channels while all goes well: everything arrives, intact, over any number of connections; room,
// redirecting, acknowledgement, closing.
#include <doctest/doctest.h>

#include <array>
#include <map>
#include <set>
#include <utility>

#include "transport/conformance.hpp"
#include "transport/framing.hpp"
#include "transport/lanes.hpp"

namespace pyccl::transport::test {

namespace {

constexpr std::array<std::uint32_t, 14> sizes{
    0, 1, 63, 64, 65, 4095, 16383, 16384, 16385, 65536, 100'000, 262'144, 1'000'003, 1 << 20};

void everything_arrives(Harness& harness, std::size_t connections, bool checksums) {
  ChannelOptions options;
  options.checksum_everywhere = checksums;
  Lane lane(harness, connections, options);
  for (LanePeer* peer : {&lane.left, &lane.right}) {
    std::uint32_t seq = 0;
    for (const std::uint32_t size : sizes) {
      ++seq;
      peer->send_segment(seq, size, 1 + seq % pieces_max);
      peer->send_text("message " + std::to_string(seq));
    }
    peer->channel->send_message(pattern(message_bytes_max, 1));
    peer->channel->send_message({});
    const std::array<SegmentHeader, 1> empty{[] {
      SegmentHeader header = segment_header(99, 500'000);
      header.empty = true;
      return header;
    }()};
    peer->channel->send_segment(empty[0], {});
  }
  const auto all = [](const LanePeer& peer) {
    return peer.segments.size() == sizes.size() + 1 && peer.texts.size() == sizes.size() + 2;
  };
  REQUIRE(lane.until([&] { return all(lane.left) && all(lane.right); }));
  for (LanePeer* peer : {&lane.left, &lane.right}) {
    for (const auto& [seq, count] : peer->segments) CHECK(count == 1);
    for (const auto& [text, count] : peer->texts) CHECK(count == 1);
    const Bytes large = pattern(message_bytes_max, 1);
    CHECK(peer->texts.contains({reinterpret_cast<const char*>(large.data()), large.size()}));
    CHECK(peer->texts.contains(""));
    CHECK(peer->segments.contains(99));
  }
  CHECK(lane.left.channel->bytes_sent() >= lane.right.channel->bytes_received());
  CHECK(lane.right.channel->bytes_received() > (3u << 20));
}

// What is queued is bounded, and whoever was told to wait is told to go on.
void room(Harness& harness) {
  ChannelOptions options;
  options.segment_bytes = 65536;
  Lane lane(harness, 2, options);
  std::uint32_t sent = 0;
  const auto fill = [&] {
    while (lane.left.channel->has_room() && sent < 600) lane.left.send_segment(++sent, 65536);
  };
  lane.left.when_room = fill;
  fill();
  CHECK(sent < 20);
  CHECK(lane.left.rooms == 0);  // never from inside a call
  REQUIRE(lane.until([&] { return lane.right.segments.size() == 600; }));
  CHECK(lane.left.rooms > 10);
}

// Segments that come back from a broken connection take the room, and who finds none is told when
// there is some again.
void room_after_a_break(Harness& harness) {
  ChannelOptions options;
  options.segment_bytes = 65536;
  Lane lane(harness, 1, options);
  std::uint32_t sent = 0;
  while (sent < 3) {
    lane.left.send_segment(++sent, 65536);
    lane.left.channel->flush();  // what the stream takes leaves the queue
  }
  const std::size_t before = lane.left.rooms;
  lane.network.break_one(0);
  REQUIRE(run_until(harness, [&] {
    return lane.left.channel->connections() + lane.right.channel->connections() == 0;
  }));
  CHECK(!lane.left.channel->has_room());
  CHECK(lane.left.rooms == before);
  lane.connect(1);
  REQUIRE(lane.until([&] { return lane.right.segments.size() == 3; }));
  CHECK(lane.until([&] { return lane.left.rooms > before; }));
}

// The memory of every other segment is taken away while its payload is being read. A byte written
// to it from then on is a crash under the address sanitizer.
void redirecting(Harness& harness) {
  Lane lane(harness, 2);
  constexpr std::uint32_t count = 40;
  std::map<ReadToken, std::uint32_t> reading;
  std::set<std::uint32_t> redirected;
  lane.right.when_segment = [&](const SegmentHeader& header, ReadToken token) {
    reading[token] = header.op.key.seq;
  };
  for (std::uint32_t seq = 1; seq <= count; ++seq) lane.left.send_segment(seq, harness.large(), 3);
  const auto all = [&] {
    for (const auto& [token, seq] : reading) {
      if (seq % 2 == 0 || lane.right.segments.contains(seq)) continue;
      lane.right.channel->redirect(token);
      lane.right.free_memory(token);
      redirected.insert(seq);
    }
    reading.clear();
    return lane.right.segments.size() + redirected.size() == count;
  };
  REQUIRE(lane.until(all));
  CHECK((redirected.size() > 2 || harness.instant()));
  for (const std::uint32_t seq : redirected) CHECK(!lane.right.segments.contains(seq));
  lane.left.send_segment(count + 1, 1000);
  REQUIRE(lane.until([&] { return lane.right.segments.contains(count + 1); }));
  for (const std::uint32_t seq : redirected) CHECK(!lane.right.segments.contains(seq));
  CHECK(lane.right.incomplete == 0);
}

// A segment for which there is no place breaks its connection and comes again on another.
void refusing(Harness& harness) {
  Lane lane(harness, 2);
  std::map<std::uint32_t, int> seen;
  lane.right.when_segment = [&](const SegmentHeader& header, ReadToken token) {
    const std::uint32_t seq = header.op.key.seq;
    if (++seen[seq] > 1 || seq != 5) return;
    lane.right.channel->refuse(token);
    lane.right.free_memory(token);
  };
  for (std::uint32_t seq = 1; seq <= 10; ++seq) lane.left.send_segment(seq, harness.large());
  REQUIRE(lane.until([&] { return lane.right.segments.size() == 10; }));
  CHECK(seen[5] >= 2);
  CHECK(lane.right.channel->connections() == 1);
}

// A message that no reader would take ends the channel and not the process.
void too_long(Harness& harness) {
  Lane lane(harness, 1);
  lane.left.channel->send_message(pattern(message_bytes_max + 1, 1));
  REQUIRE(lane.until([&] { return lane.right.channel->connections() == 0; }));
  CHECK(lane.right.texts.empty());
}

// What has been acknowledged is not sent again when the connection breaks.
void acknowledgement(Harness& harness) {
  Lane lane(harness, 1);
  lane.left.send_text("once");
  lane.left.send_segment(1, 50'000);
  REQUIRE(lane.until([&] { return lane.right.texts.contains("once") && lane.right.segments[1]; }));
  const std::uint64_t silent = lane.right.channel->bytes_sent();
  REQUIRE(lane.until([&] {
    return lane.right.channel->bytes_sent() >= silent + header_bytes &&
           lane.left.channel->bytes_received() == lane.right.channel->bytes_sent();
  }));
  CHECK(lane.right.channel->bytes_sent() == silent + header_bytes);
  lane.network.break_one(0);
  REQUIRE(lane.until([&] {
    return lane.left.channel->connections() == 0 && lane.right.channel->connections() == 0;
  }));
  lane.connect(1);
  lane.left.send_text("next");
  REQUIRE(lane.until([&] { return lane.right.texts.contains("next"); }));
  CHECK(lane.right.texts["once"] == 1);
  CHECK(lane.right.segments[1] == 1);
}

// What waits while there is no connection leaves when there is one.
void waiting_for_a_connection(Harness& harness) {
  Lane lane(harness, 0);
  lane.left.send_text("early");
  lane.left.send_segment(1, 1000);
  for (int i = 0; i < 5; ++i) lane.turn();
  lane.connect(1);
  CHECK(lane.until(
      [&] { return lane.right.texts.contains("early") && lane.right.segments.contains(1); }));
}

void closing(Harness& harness) {
  Lane lane(harness, 2);
  for (std::uint32_t seq = 1; seq <= 8; ++seq) lane.left.send_segment(seq, harness.large());
  REQUIRE(lane.until([&] { return !lane.right.segments.empty(); }));
  const std::size_t texts = lane.left.texts.size();
  lane.left.channel->close({Code::closed, "done"});
  lane.left.channel->close({Code::closed, "done twice"});
  CHECK(lane.left.channel->connections() == 0);
  REQUIRE(lane.until([&] { return lane.right.channel->connections() == 0; }));
  CHECK(lane.right.connection_counts.back() == 0);
  CHECK(lane.left.connection_counts.empty());
  CHECK(lane.left.texts.size() == texts);
  lane.left.send_text("into the void");
  lane.left.channel->flush();
}

// Each callback closes its own channel, and once destroys it.
void closing_in_callbacks(Harness& harness, bool destroy) {
  for (int which = 0; which < 5; ++which) {
    Lane lane(harness, 2);
    bool done = false;
    const auto end = [&] {
      if (std::exchange(done, true)) return;
      if (destroy) return lane.right.channel.reset();
      lane.right.channel->close({Code::closed, "from a callback"});
    };
    if (which == 0) lane.right.when_message = end;
    if (which == 1) lane.right.when_segment = [&](const SegmentHeader&, ReadToken) { end(); };
    if (which == 2) lane.right.when_segment_end = end;
    if (which == 3) lane.right.when_room = end;
    if (which == 4) lane.right.when_connections = end;
    lane.left.send_text("hello");
    lane.left.send_segment(1, 200'000);
    while (lane.right.channel->has_room()) {
      lane.right.send_segment(100 + static_cast<std::uint32_t>(lane.right.sent()), 100'000);
    }
    if (which == 4) lane.network.break_one(0);
    REQUIRE(run_until(harness, [&] {
      lane.left.channel->flush();
      return done && lane.left.channel->connections() == 0;
    }));
  }
}

// A peer that never reads its messages is given up instead of being remembered without end.
void unread_messages(Harness& harness) {
  Lane lane(harness, 0);
  const Bytes body = pattern(message_bytes_max, 1);
  for (int i = 0; i < 80; ++i) lane.left.channel->send_message(body);
  lane.left.dial(lane.right.address());
  REQUIRE(lane.until([&] { return lane.right.connection_counts.size() == 1; }));
  CHECK(lane.right.connection_counts.back() == 0);
  CHECK(lane.left.channel->connections() == 0);
}

}  // namespace

void channel_conformance(const MakeHarness& make) {
  const std::unique_ptr<Harness> harness = make();
  SUBCASE("everything arrives over 1 connection") { everything_arrives(*harness, 1, false); }
  SUBCASE("everything arrives over 2 connections") { everything_arrives(*harness, 2, true); }
  SUBCASE("everything arrives over 4 connections") { everything_arrives(*harness, 4, false); }
  SUBCASE("room") { room(*harness); }
  SUBCASE("room after a break") { room_after_a_break(*harness); }
  SUBCASE("redirecting") { redirecting(*harness); }
  SUBCASE("acknowledgement") { acknowledgement(*harness); }
  SUBCASE("waiting for a connection") { waiting_for_a_connection(*harness); }
  SUBCASE("closing") { closing(*harness); }
  SUBCASE("closing in callbacks") { closing_in_callbacks(*harness, false); }
  SUBCASE("destroying in callbacks") { closing_in_callbacks(*harness, true); }
  SUBCASE("refusing") { refusing(*harness); }
  SUBCASE("too long a message") { too_long(*harness); }
  SUBCASE("unread messages") { unread_messages(*harness); }
}

}  // namespace pyccl::transport::test
