// Headers: what goes in comes out, and the bytes are those that framing.hpp promises.
#include "transport/framing.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>

#include "base/prng.hpp"
#include "transport/conformance.hpp"

namespace pyccl::transport::test {

namespace {

FrameHeader sample() {
  FrameHeader header;
  header.kind = FrameKind::segment;
  header.checksummed = true;
  header.length = 0x00010203;
  header.acknowledged = 0x11121314;
  header.payload_checksum = 0x21222324;
  header.segment.op.epoch = {0x31323334, 0x41424344};
  header.segment.op.key.group = {0x5152535455565758};
  header.segment.op.key.tag = 0x61626364;
  header.segment.op.key.seq = 0x71727374;
  header.segment.part = 0x8182;
  header.segment.step = 0x9192;
  header.segment.offset = 0xa1a2a3a4a5a6a7a8;
  header.segment.length = header.length;
  return header;
}

}  // namespace

// The golden bytes: a change here is a change of the protocol's version.
TEST_CASE("the wire format is what it was") {
  HeaderBytes bytes;
  encode_header(sample(), bytes);
  std::string text;
  for (const std::byte b : bytes) {
    constexpr const char* digits = "0123456789abcdef";
    text += digits[static_cast<unsigned>(b) >> 4];
    text += digits[static_cast<unsigned>(b) & 15];
  }
  CHECK(text.substr(0, 112) ==
        "7079636c"
        "02"
        "02"
        "0100"
        "03020100"
        "14131211"
        "34333231"
        "44434241"
        "5857565554535251"
        "64636261"
        "74737271"
        "8281"
        "9291"
        "a8a7a6a5a4a3a2a1"
        "24232221");
  CHECK(text.substr(112) == "7cc5bfd98bc6a2dc");
}

TEST_CASE("headers come back as they were") {
  HeaderBytes bytes;
  for (const FrameKind kind :
       {FrameKind::message, FrameKind::segment, FrameKind::acknowledgement}) {
    for (const bool empty : {false, true}) {
      FrameHeader header = sample();
      header.kind = kind;
      if (kind != FrameKind::segment) header.segment = {};
      if (kind == FrameKind::acknowledgement) header.length = 0;
      if (kind == FrameKind::segment) header.segment.empty = empty;
      encode_header(header, bytes);
      const auto decoded = decode_header(bytes);
      REQUIRE(decoded.ok());
      const FrameHeader& back = decoded.value();
      CHECK(back.kind == kind);
      CHECK(back.checksummed);
      CHECK(back.acknowledged == header.acknowledged);
      CHECK(back.payload_checksum == header.payload_checksum);
      CHECK(back.length == (header.segment.empty ? 0 : header.length));
      CHECK(back.segment.length == header.segment.length);
      CHECK(back.segment.op == header.segment.op);
      CHECK(back.segment.part == header.segment.part);
      CHECK(back.segment.step == header.segment.step);
      CHECK(back.segment.offset == header.segment.offset);
      CHECK(back.segment.empty == header.segment.empty);
    }
  }
}

TEST_CASE("no flipped bit of a header passes") {
  HeaderBytes bytes;
  encode_header(sample(), bytes);
  REQUIRE(decode_header(bytes).ok());
  for (std::size_t bit = 0; bit < 8 * header_bytes; ++bit) {
    HeaderBytes flipped = bytes;
    flipped[bit / 8] ^= std::byte{1} << (bit % 8);
    CHECK(!decode_header(flipped).ok());
  }
}

TEST_CASE("the checksum does not depend on how the payload is cut") {
  const Bytes bytes = pattern(100'000, 5);
  const ByteView all(bytes);
  const std::array<ByteView, 1> whole{all};
  const std::uint32_t expected = payload_checksum(whole);
  Prng prng(1);
  for (int i = 0; i < 100; ++i) {
    const std::size_t first = prng.below(bytes.size());
    const std::size_t second = prng.below(bytes.size() - first);
    const std::array<ByteView, 3> pieces{all.first(first), all.subspan(first, second),
                                         all.subspan(first + second)};
    CHECK(payload_checksum(pieces) == expected);
  }
  CHECK(payload_checksum({}) == payload_checksum(std::array<ByteView, 1>{ByteView{}}));
}

}  // namespace pyccl::transport::test
