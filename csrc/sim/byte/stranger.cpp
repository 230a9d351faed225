// What strangers say; see stranger.hpp.
#include "sim/byte/stranger.hpp"

#include <array>

#include "transport/framing.hpp"

namespace pyccl::sim {

Stranger::Stranger(SimulatedNetwork& network, const std::string& address, Prng prng)
    : prng_(prng), stream_(network.host("10.0.2.1").dial(address, this)) {}

void Stranger::on_connected() {
  Bytes words(prng_.below(400));
  for (std::byte& each : words) each = static_cast<std::byte>(prng_.next());
  const std::uint64_t manner = prng_.below(4);
  if (manner == 0) return;  // says nothing
  if (manner == 1 && words.size() >= transport::header_bytes) {
    // A frame as it should be, around a message that is none.
    transport::FrameHeader header;
    header.kind = transport::FrameKind::message;
    header.length = static_cast<std::uint32_t>(words.size() - transport::header_bytes);
    transport::HeaderBytes encoded;
    transport::encode_header(header, encoded);
    std::copy(encoded.begin(), encoded.end(), words.begin());
  }
  const std::array<ByteView, 1> parts{ByteView(words)};
  (void)stream_->write(parts);
  if (manner == 2) stream_->close();
}

void Stranger::on_readable() {
  std::array<std::byte, 512> words;
  const std::array<MutableByteView, 1> parts{MutableByteView(words)};
  if (!stream_->read(parts).status.ok()) stream_->close();
}

}  // namespace pyccl::sim
