// Writes frames to one stream and remembers those that the other side has not acknowledged.
//
// A frame stays in its queue until its first byte has been taken by the stream: what a blocked
// connection has not begun, another one may take.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "transport/framing.hpp"
#include "transport/network.hpp"
#include "transport/outgoing.hpp"

namespace pyccl::transport {

class FrameWriter {
 public:
  ~FrameWriter() { delete current_; }

  // Checksums over payloads, too.
  void checksum_payloads(bool on) { checksums_ = on; }
  // From here on frames are kept until acknowledged.
  void keep_unacknowledged() { keeps_ = true; }
  // Payloads go by reference where that pays; not those with a checksum.
  void lend_through(Lending* lending) { lending_ = lending; }

  struct Outcome {
    std::size_t bytes = 0;
    std::size_t message_bytes = 0;  // payload of the frames that have left their queue
    std::size_t segment_bytes = 0;
    std::size_t pinned_bytes = 0;
    bool blocked = false;  // the stream took less than it was offered, or lends no more at present
    Status status;
  };
  // One write of what is begun and then of frames from `queues`, the first one first. If there is
  // nothing and `acknowledge` is set, an acknowledgement goes out alone. `received` is the number
  // of frames got on this stream.
  Outcome write(Stream&, std::span<FrameList* const> queues, FramePool&, std::uint32_t received,
                bool acknowledge);

  // `count` frames have arrived at the other side; false: more than were sent. `again` gets those
  // whose memory the other side could not read.
  bool acknowledged(std::uint32_t count, FramePool&, FrameList& again);

  // Reads nothing of the operation's memory any more.
  void forget(OpId);

  // The stream is dead: what it may not have delivered returns to the front of the queues.
  struct Returned {
    std::size_t message_bytes = 0;
    std::size_t segment_bytes = 0;
  };
  Returned take_back(FrameList& messages, FrameList& segments, FramePool&);

  bool idle() const { return current_ == nullptr; }
  std::uint32_t acknowledgement_sent() const { return acknowledgement_sent_; }
  std::uint64_t bytes() const { return bytes_; }
  std::uint64_t unacknowledged_message_bytes() const { return unacknowledged_message_bytes_; }

 private:
  static constexpr std::size_t batch_frames_max = 16;
  static constexpr std::size_t batch_views_max = 64;
  static constexpr std::size_t batch_bytes_max = 1 << 20;

  struct Batch {
    std::array<OutgoingFrame*, batch_frames_max> frames;
    std::array<FrameList*, batch_frames_max> sources;
    std::array<HeaderBytes, batch_frames_max> headers;
    std::array<std::size_t, batch_frames_max> sizes;  // bytes still to be written of each
    std::array<ByteView, batch_views_max> views;
    std::size_t frame_count = 0;
    std::size_t view_count = 0;
    std::size_t bytes = 0;
    bool full() const {
      return frame_count == batch_frames_max || bytes >= batch_bytes_max ||
             view_count + pieces_max + 1 > batch_views_max;
    }
  };

  bool borrowable(OutgoingFrame&);
  void gather(Batch&, OutgoingFrame*, FrameList* source, std::uint32_t received);
  void gather_rest(Batch&);
  void encode(OutgoingFrame&, std::uint32_t received, HeaderBytes&) const;
  void settle(const Batch&, std::size_t bytes, std::uint32_t received, Outcome&, FramePool&);
  void written(OutgoingFrame*, FramePool&);

  bool checksums_ = false;
  bool keeps_ = false;
  Lending* lending_ = nullptr;
  OutgoingFrame* current_ = nullptr;  // begun and not finished
  HeaderBytes current_header_{};
  std::size_t current_written_ = 0;  // header included
  FrameList unacknowledged_;
  std::uint32_t acknowledged_ = 0;  // frames, mod 2^32
  std::uint32_t acknowledgement_sent_ = 0;
  std::uint64_t bytes_ = 0;
  std::uint64_t unacknowledged_message_bytes_ = 0;
};

}  // namespace pyccl::transport
