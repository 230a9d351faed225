// Turns what a stream delivers, however it is split, into frames.
//
// One read takes the rest of the present payload straight to its destination and, behind it, what
// follows into a small buffer: large payloads are never copied and the next header comes for free.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

#include "base/bytes.hpp"
#include "base/status.hpp"
#include "transport/channel.hpp"
#include "transport/framing.hpp"
#include "transport/life.hpp"
#include "transport/network.hpp"

namespace pyccl::transport {

// Any of these may close or destroy the reader's owner.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  virtual Status on_header(const FrameHeader&) = 0;  // of each frame; a failure ends the stream
  virtual void on_message(ByteView body) = 0;
  virtual ReadToken on_segment(const SegmentHeader&, MutablePieces& target) = 0;
  virtual void on_segment_end(const SegmentHeader&, ReadToken, bool complete) = 0;
};

class FrameReader {
 public:
  explicit FrameReader(FrameSink* sink);

  // Reads about `budget` bytes at most, so that no stream starves the others. A failure is final.
  Status read(Stream&, std::size_t budget);

  ReadToken token() const { return token_; }  // of the payload that is being read, or 0
  void redirect() { discard(); }
  void stop() { stopped_ = true; }  // no frame is delivered any more
  void abort();                     // the stream has died: ends the payload under way

  std::uint32_t frames() const { return frames_; }  // messages and segments, mod 2^32
  std::uint64_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t buffer_bytes = 16 * 1024;
  enum class State { header, message, payload, reference };

  std::size_t destinations(std::span<MutableByteView> views);
  void place(std::size_t bytes);
  Status parse(const Life::Watch&);
  Status begin_frame();
  void begin_segment();
  Status feed_message();
  Status end_message(ByteView body);
  Status feed_payload();
  Status end_payload();
  Status take_reference();
  void advance(std::size_t bytes);
  void discard();
  ByteView unparsed() const { return {buffer_.get() + begin_, end_ - begin_}; }

  FrameSink* sink_;
  Stream* stream_ = nullptr;  // during a read
  State state_ = State::header;
  bool stopped_ = false;
  FrameHeader header_;
  std::size_t rest_ = 0;  // bytes of the present frame's payload still to come
  Bytes message_;         // a message that did not fit into what the buffer held
  MutablePieces target_;
  std::size_t piece_ = 0;  // where the next byte of the payload goes
  std::size_t piece_at_ = 0;
  ReadToken token_ = 0;
  std::uint32_t frames_ = 0;
  std::uint64_t bytes_ = 0;
  std::size_t taken_ = 0;  // by reference, in this read
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t begin_ = 0;  // of what the buffer holds and nobody has looked at
  std::size_t end_ = 0;
  Life life_;
};

}  // namespace pyccl::transport
