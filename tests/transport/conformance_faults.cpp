// Channels and connections when something goes wrong: connections break at random while data flows
// both ways, operations are forgotten, bits flip, strangers send garbage.
#include <doctest/doctest.h>

#include <array>
#include <limits>

#include "transport/conformance.hpp"
#include "transport/framing.hpp"
#include "transport/lanes.hpp"

namespace pyccl::transport::test {

namespace {

// All arrives at least once, however often connections break.
void breaking_connections(Harness& harness, std::size_t connections) {
  ChannelOptions options;
  options.segment_bytes = harness.large() / 16;
  Lane lane(harness, connections, options);
  Prng prng(connections);
  constexpr std::uint32_t segments = 400;
  std::uint32_t sent[2] = {0, 0};
  LanePeer* const peers[2] = {&lane.left, &lane.right};
  int breaks = 0;
  std::size_t progress = 0;
  const auto finished = [&] {
    for (int i = 0; i < 2; ++i) {
      while (peers[i]->channel->has_room() && sent[i] < segments) {
        const auto size = static_cast<std::uint32_t>(prng.below(harness.large() / 8));
        peers[i]->send_segment(++sent[i], size, 1 + prng.below(4));
        if (sent[i] % 10 == 0) peers[i]->send_text(std::to_string(sent[i]));
      }
    }
    const std::size_t now = lane.left.segments.size() + lane.right.segments.size();
    if (now > progress + 30 && lane.network.open() > 0) {
      progress = now;
      ++breaks;
      lane.network.break_one(prng.below(lane.network.open()));
    }
    if (lane.left.channel->connections() < connections && !lane.left.dialling()) {
      lane.left.dial(lane.right.address());
    }
    return lane.left.segments.size() == segments && lane.right.segments.size() == segments &&
           lane.left.texts.size() == segments / 10 && lane.right.texts.size() == segments / 10;
  };
  REQUIRE(lane.until(finished));
  CHECK(breaks >= 10);
}

// Memory of a forgotten operation is never read again: not from the queue, not half-way, not when a
// connection breaks. Poison that arrived would be seen by the check of the bytes.
void forgetting(Harness& harness, bool broken) {
  ChannelOptions options;
  options.segment_bytes = harness.large();
  Lane lane(harness, 2, options);
  Prng prng(7);
  for (std::uint32_t round = 0; round < 12; ++round) {
    const std::uint32_t first = 1 + round * 10;
    for (std::uint32_t i = 0; i < 4; ++i) lane.left.send_segment(first + i, harness.large(), 1 + i);
    lane.left.channel->flush();  // some are now half on the wire
    for (std::uint64_t turns = prng.below(4); turns > 0; --turns) lane.turn();
    if (broken) lane.network.break_one(prng.next());
    for (std::uint32_t i = 0; i < 4; ++i) lane.left.drop(first + i);
    lane.left.send_segment(first + 4, 10'000);
    REQUIRE(lane.until([&] {
      if (lane.left.channel->connections() < 2 && !lane.left.dialling()) {
        lane.left.dial(lane.right.address());
      }
      return lane.right.segments.contains(first + 4);
    }));
  }
  // What was half on the wire has been finished, as its header had promised.
  if (!broken) CHECK(lane.right.connection_counts.empty());
}

// A header or a payload that does not match its checksum ends the connection and reaches nobody.
void flipped_bits(Harness& harness) {
  for (int which = 0; which < 3; ++which) {
    Lane lane(harness, 1);
    StreamEnd stranger;
    stranger.dial(harness, lane.right.address());
    REQUIRE(lane.until([&] { return stranger.connected; }));
    const Bytes body = pattern(5000, 1);
    const std::array<ByteView, 1> pieces{ByteView(body)};
    FrameHeader header;
    header.length = 5000;
    header.checksummed = true;
    header.payload_checksum = payload_checksum(pieces);
    HeaderBytes bytes;
    encode_header(header, bytes);
    Bytes frame(bytes.begin(), bytes.end());
    frame.insert(frame.end(), body.begin(), body.end());
    if (which == 0) frame[9] ^= std::byte{1};   // the length
    if (which == 1) frame[64] ^= std::byte{1};  // the first byte
    if (which == 2) frame.back() ^= std::byte{128};
    stranger.send(frame);
    REQUIRE(lane.until([&] { return lane.right.closed.size() == 1 && stranger.ended(); }));
    CHECK(lane.right.closed[0].code() == Code::io);
    CHECK(lane.right.closed[0].reason().find("checksum") != std::string::npos);
    CHECK(lane.right.channel->connections() == 1);
  }
}

// A flipped bit within a channel: the connection dies, the segment is reported as incomplete and
// comes again over another connection.
void flipped_bit_in_a_segment(Harness& harness) {
  ChannelOptions options;
  options.checksum_everywhere = true;
  Lane lane(harness, 1, options);
  lane.network.flip_next(20'000);
  lane.left.send_segment(1, 60'000);
  REQUIRE(lane.until([&] { return lane.right.channel->connections() == 0; }));
  CHECK(lane.right.incomplete == 1);
  CHECK(lane.right.segments.empty());
  REQUIRE(lane.until([&] { return lane.left.channel->connections() == 0; }));
  lane.connect(1);
  CHECK(lane.until([&] { return lane.right.segments.contains(1); }));
}

struct Garbage {
  const char* what;
  Bytes bytes;
  Code code;
  bool end = false;  // of the stream, behind the bytes
};

Bytes header_with(const FrameHeader& header) {
  HeaderBytes bytes;
  encode_header(header, bytes);
  return {bytes.begin(), bytes.end()};
}

std::vector<Garbage> garbage() {
  std::vector<Garbage> all;
  all.push_back({"noise", pattern(10'000, 3), Code::protocol_violation});
  FrameHeader header;
  header.length = 100;
  Bytes wrong_version = header_with(header);
  wrong_version[4] = std::byte{frame_version + 1};
  all.push_back({"another version", wrong_version, Code::protocol_violation});
  header.length = message_bytes_max + 1;
  all.push_back({"too long a message", header_with(header), Code::protocol_violation});
  header.kind = FrameKind::segment;
  header.segment.length = segment_bytes_max + 1;
  all.push_back({"too long a segment", header_with(header), Code::protocol_violation});
  header.segment.length = std::numeric_limits<std::uint32_t>::max();
  header.segment.empty = true;
  all.push_back({"too long an empty segment", header_with(header), Code::protocol_violation});
  header.segment = segment_header(1, 100);
  all.push_back({"a segment from a stranger", header_with(header), Code::protocol_violation});
  header.segment.empty = false;
  header.references = 2;
  all.push_back({"a reference from a stranger", header_with(header), Code::protocol_violation});
  header.kind = FrameKind::message;
  all.push_back({"a message by reference", header_with(header), Code::protocol_violation});
  header = {};
  header.kind = static_cast<FrameKind>(77);
  all.push_back({"an unknown kind", header_with(header), Code::protocol_violation});
  header = {};
  header.kind = FrameKind::acknowledgement;
  header.acknowledged = 1;
  all.push_back({"a false acknowledgement", header_with(header), Code::protocol_violation});
  header = {};
  header.length = 1000;
  Bytes cut = header_with(header);
  cut.resize(cut.size() + 10);
  all.push_back({"a message cut short", cut, Code::io, true});
  cut.resize(20);
  all.push_back({"a header cut short", cut, Code::io, true});
  return all;
}

// Strangers are turned away with a reason, and the channel beside them does not notice.
void strangers(Harness& harness) {
  Lane lane(harness, 2);
  std::uint32_t seq = 0;
  for (const Garbage& one : garbage()) {
    CAPTURE(one.what);
    lane.right.closed.clear();
    StreamEnd stranger;
    stranger.dial(harness, lane.right.address());
    REQUIRE(lane.until([&] { return stranger.connected; }));
    stranger.send(one.bytes);
    lane.left.send_segment(++seq, 200'000);
    if (one.end) {
      for (int i = 0; i < 10; ++i) lane.turn();
      stranger.stream->close();
    }
    REQUIRE(lane.until(
        [&] { return lane.right.closed.size() == 1 && lane.right.segments.size() == seq; }));
    CHECK(lane.right.closed[0].code() == one.code);
    CHECK(lane.right.closed[0].reason().size() > 10);
    CHECK((one.end || lane.until([&] { return stranger.ended(); })));
  }
  CHECK(lane.right.channel->connections() == 2);
  CHECK(lane.right.connection_counts.empty());
}

}  // namespace

void channel_fault_conformance(const MakeHarness& make) {
  const std::unique_ptr<Harness> harness = make();
  SUBCASE("breaking 1 connection") { breaking_connections(*harness, 1); }
  SUBCASE("breaking 2 connections") { breaking_connections(*harness, 2); }
  SUBCASE("breaking 4 connections") { breaking_connections(*harness, 4); }
  SUBCASE("forgetting") { forgetting(*harness, false); }
  SUBCASE("forgetting while connections break") { forgetting(*harness, true); }
  SUBCASE("flipped bits") { flipped_bits(*harness); }
  SUBCASE("a flipped bit in a segment") { flipped_bit_in_a_segment(*harness); }
  SUBCASE("strangers") { strangers(*harness); }
}

}  // namespace pyccl::transport::test
