// The frames of which every stream is made, and nothing about sockets.
//
// Each frame is a header of 64 bytes, little endian, and `length` bytes of payload:
//
//    0  u32  magic             "pycl", 0x6c637970
//    4  u8   version           2
//    5  u8   kind              1 message, 2 segment, 3 acknowledgement
//    6  u16  flags             1 the payload is checksummed, 2 an empty segment, 4 by reference
//    8  u32  length            bytes of payload; of an empty segment or one by reference: the bytes
//                              that it stands for
//   12  u32  acknowledged      messages and segments got so far on this stream, mod 2^32
//   16  u32  incarnation       of the operation's epoch
//   20  u32  counter           of the operation's epoch
//   24  u64  group
//   32  u32  tag
//   36  u32  sequence number
//   40  u16  part
//   42  u16  step              of the sender's plan
//   44  u64  offset            bytes from the begin of the transfer
//   52  u32  payload checksum  lower half of the payload's XXH3-64 if flag 1 is set; by reference:
//                              the number of pieces, which follow as lending.hpp says; else 0
//   56  u64  header checksum   XXH3-64 of the 56 bytes before
//
// Bytes 16 to 51 are 0 in all but segments. The header's checksum is always there, because a
// flipped bit in `offset` would put good bytes where they don't belong before anybody could notice.
// The payload's is left out where both ends are on one host: no wire can flip a bit there, and it
// would cost a tenth of the bandwidth.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.hpp"
#include "base/status.hpp"
#include "transport/connection.hpp"

namespace pyccl::transport {

inline constexpr std::size_t header_bytes = 64;
inline constexpr std::uint32_t frame_magic = 0x6c637970;
inline constexpr std::uint8_t frame_version = 2;

enum class FrameKind : std::uint8_t { message = 1, segment = 2, acknowledgement = 3 };

struct FrameHeader {
  FrameKind kind = FrameKind::message;
  bool checksummed = false;
  std::uint32_t length = 0;  // bytes of payload that follow
  std::uint32_t acknowledged = 0;
  SegmentHeader segment;  // of segments; segment.length may count bytes that don't follow
  std::uint32_t payload_checksum = 0;
  std::size_t references = 0;  // pieces that stand for the payload; 0: it follows itself
};

using HeaderBytes = std::array<std::byte, header_bytes>;

void encode_header(const FrameHeader& header, HeaderBytes& out);

// What can't be a header is Code::protocol_violation with a sentence; a header whose bits do not
// match its checksum is Code::io.
Result<FrameHeader> decode_header(std::span<const std::byte, header_bytes> bytes);

// Why a message of more than message_bytes_max can't be sent.
Status message_too_long(std::size_t bytes);

std::uint32_t payload_checksum(std::span<const ByteView> pieces);

}  // namespace pyccl::transport
