// Headers to bytes and back; see framing.hpp for the format.
#include "transport/framing.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string>
#include <utility>

#include "transport/lending.hpp"

namespace pyccl::transport {

namespace {

constexpr std::uint16_t flag_checksummed = 1;
constexpr std::uint16_t flag_empty = 2;
constexpr std::uint16_t flag_reference = 4;
constexpr std::uint16_t flags_known = flag_checksummed | flag_empty | flag_reference;
constexpr std::size_t checked_bytes = 56;  // all before the header's own checksum

Status violation(std::string reason) { return {Code::protocol_violation, std::move(reason)}; }

void encode_segment(const SegmentHeader& segment, std::byte* at) {
  store_little(at + 16, segment.op.epoch.incarnation);
  store_little(at + 20, segment.op.epoch.counter);
  store_little(at + 24, segment.op.key.group.value);
  store_little(at + 32, segment.op.key.tag);
  store_little(at + 36, segment.op.key.seq);
  store_little(at + 40, segment.part);
  store_little(at + 42, segment.step);
  store_little(at + 44, segment.offset);
}

void decode_segment(const std::byte* at, SegmentHeader& segment) {
  segment.op.epoch.incarnation = load_little<std::uint32_t>(at + 16);
  segment.op.epoch.counter = load_little<std::uint32_t>(at + 20);
  segment.op.key.group.value = load_little<std::uint64_t>(at + 24);
  segment.op.key.tag = load_little<std::uint32_t>(at + 32);
  segment.op.key.seq = load_little<std::uint32_t>(at + 36);
  segment.part = load_little<std::uint16_t>(at + 40);
  segment.step = load_little<std::uint16_t>(at + 42);
  segment.offset = load_little<std::uint64_t>(at + 44);
}

// Kind, flags and length of a header whose bits are known to be right.
Status check(std::uint8_t kind, std::uint16_t flags, std::uint32_t length) {
  if (kind < 1 || kind > 3) return violation("unknown frame kind " + std::to_string(kind));
  if ((flags & ~flags_known) != 0) return violation("unknown frame flags " + std::to_string(flags));
  const auto what = static_cast<FrameKind>(kind);
  if (what != FrameKind::segment && (flags & (flag_empty | flag_reference)) != 0) {
    return violation("only a segment can be empty or come by reference");
  }
  if ((flags & flag_reference) != 0 && flags != flag_reference) {
    return violation("a segment by reference can't be empty or checksummed");
  }
  const std::uint32_t limit = what == FrameKind::message   ? message_bytes_max
                              : what == FrameKind::segment ? segment_bytes_max
                                                           : 0;
  if (length > limit) {
    return violation("a frame of " + std::to_string(length) + " bytes where " +
                     std::to_string(limit) + " are allowed");
  }
  return {};
}

}  // namespace

void encode_header(const FrameHeader& header, HeaderBytes& out) {
  std::byte* at = out.data();
  out.fill(std::byte{0});
  std::uint16_t flags = header.checksummed ? flag_checksummed : 0;
  std::uint32_t length = header.length;
  if (header.kind == FrameKind::segment) {
    if (header.segment.empty) flags |= flag_empty;
    length = header.segment.length;
    encode_segment(header.segment, at);
  }
  if (header.references > 0) flags |= flag_reference;
  store_little(at, frame_magic);
  store_little(at + 4, frame_version);
  store_little(at + 5, static_cast<std::uint8_t>(header.kind));
  store_little(at + 6, flags);
  store_little(at + 8, length);
  store_little(at + 12, header.acknowledged);
  const auto references = static_cast<std::uint32_t>(header.references);
  store_little(at + 52, references > 0 ? references : header.payload_checksum);
  store_little(at + checked_bytes, static_cast<std::uint64_t>(XXH3_64bits(at, checked_bytes)));
}

Result<FrameHeader> decode_header(std::span<const std::byte, header_bytes> bytes) {
  const std::byte* at = bytes.data();
  if (load_little<std::uint32_t>(at) != frame_magic) {
    return violation("what arrived is not a frame of this protocol");
  }
  const auto version = load_little<std::uint8_t>(at + 4);
  if (version != frame_version) {
    return violation("the other side speaks frame version " + std::to_string(version) +
                     ", this one speaks " + std::to_string(frame_version));
  }
  if (load_little<std::uint64_t>(at + checked_bytes) != XXH3_64bits(at, checked_bytes)) {
    return Status(Code::io, "a frame's header does not match its checksum");
  }
  const auto kind = load_little<std::uint8_t>(at + 5);
  const auto flags = load_little<std::uint16_t>(at + 6);
  const auto length = load_little<std::uint32_t>(at + 8);
  if (Status status = check(kind, flags, length); !status.ok()) return status;

  FrameHeader header;
  header.kind = static_cast<FrameKind>(kind);
  header.checksummed = (flags & flag_checksummed) != 0;
  header.length = (flags & flag_empty) != 0 ? 0 : length;
  header.acknowledged = load_little<std::uint32_t>(at + 12);
  header.payload_checksum = load_little<std::uint32_t>(at + 52);
  if (header.kind == FrameKind::segment) {
    decode_segment(at, header.segment);
    header.segment.empty = (flags & flag_empty) != 0;
    header.segment.length = length;
  }
  if ((flags & flag_reference) != 0) {
    const std::uint64_t pieces = std::exchange(header.payload_checksum, 0);
    if (pieces < 1 || pieces > pieces_max) {
      return violation("a segment of " + std::to_string(pieces) + " pieces");
    }
    header.references = static_cast<std::size_t>(pieces);
    header.length = static_cast<std::uint32_t>(reference_bytes(header.references));
  }
  return header;
}

Status message_too_long(std::size_t bytes) {
  return {Code::limit_exceeded, "a message of " + std::to_string(bytes) +
                                    " bytes is longer than the " +
                                    std::to_string(message_bytes_max) + " that can be sent"};
}

std::uint32_t payload_checksum(std::span<const ByteView> pieces) {
  if (pieces.size() == 1) {
    return static_cast<std::uint32_t>(XXH3_64bits(pieces[0].data(), pieces[0].size()));
  }
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  for (const ByteView& piece : pieces) XXH3_64bits_update(&state, piece.data(), piece.size());
  return static_cast<std::uint32_t>(XXH3_64bits_digest(&state));
}

}  // namespace pyccl::transport
