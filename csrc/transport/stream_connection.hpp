// A framed connection over a stream, in either of its two lives: first on its own, with an observer
// (control links, handshakes), then perhaps as one of a channel's.
//
// The number of frames got and sent counts from the begin of the stream, handshake included, so the
// two ends agree on it although they hand their ends over at different moments.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "transport/channel.hpp"
#include "transport/connection.hpp"
#include "transport/frame_reader.hpp"
#include "transport/frame_writer.hpp"
#include "transport/life.hpp"

namespace pyccl::transport {

class StreamConnection;

// A channel, seen from its connections. Each call may end in the connection's destruction.
class ConnectionOwner {
 public:
  virtual ~ConnectionOwner() = default;
  virtual void on_message(ByteView body) = 0;
  // 0: there is no place for it, and this connection is to break.
  virtual ReadToken on_segment(const SegmentHeader&, MutablePieces& target) = 0;
  virtual void on_segment_end(const SegmentHeader&, ReadToken, bool complete) = 0;
  virtual void on_read(StreamConnection&) = 0;  // a batch of frames has been handled
  virtual void on_writable(StreamConnection&) = 0;
  // Segments that have to go again, and otherwise. Never empty; they belong to the channel.
  virtual void on_unreadable(FrameList&) = 0;
  virtual void on_closed(StreamConnection&, Status) = 0;
};

class StreamConnection final : public Connection, private StreamObserver, private FrameSink {
 public:
  // Either a dialled one (address) or an accepted one (stream).
  StreamConnection(Network& network, const std::string& address, ConnectionObserver* observer);
  StreamConnection(std::unique_ptr<Stream> stream, ConnectionObserver* observer,
                   std::size_t first_message_bytes);
  ~StreamConnection() override;

  void send_message(ByteView body) override;
  void flush() override;
  void finish() override;
  void close() override;
  bool closed() const override { return state_ == State::closed; }
  std::string remote_address() const override { return stream_->remote_address(); }
  bool same_host() const override { return stream_->same_host(); }

  // For channels.
  bool open() const { return state_ == State::open; }
  void join(ConnectionOwner* owner, FramePool* pool, bool checksum_everywhere);
  FrameReader& reader() { return reader_; }
  FrameWriter& writer() { return writer_; }
  // One write of frames from the queues; see FrameWriter::write.
  FrameWriter::Outcome write(FrameList& messages, FrameList& segments, bool acknowledge);
  void fail(Status reason) { stream_->fail(std::move(reason)); }
  void watch_writable(bool on) { stream_->watch_writable(on); }
  bool can_write() const { return state_ == State::open && !write_failed_; }
  bool has_own() const { return !own_.empty() || !writer_.idle(); }
  std::optional<WayMeasurement> measurement() const { return stream_->measurement(); }
  // Frames got and not yet acknowledged.
  std::uint32_t acknowledgement_owed() const {
    return reader_.frames() - writer_.acknowledgement_sent();
  }

 private:
  enum class State { connecting, open, closed };

  void on_connected() override;
  void on_readable() override;
  void on_writable() override;
  void on_failed(Status status) override;

  Status on_header(const FrameHeader& header) override;
  void on_message(ByteView body) override;
  ReadToken on_segment(const SegmentHeader& header, MutablePieces& target) override;
  void on_segment_end(const SegmentHeader& header, ReadToken token, bool complete) override;

  FrameWriter::Outcome write_from(std::span<FrameList* const> queues, bool acknowledge);
  void write_own();
  void end(Status status);
  FramePool& pool() { return shared_pool_ != nullptr ? *shared_pool_ : own_pool_; }

  State state_;
  ConnectionObserver* observer_;
  ConnectionOwner* owner_ = nullptr;
  FramePool own_pool_;
  FramePool* shared_pool_ = nullptr;
  FrameList own_;  // messages of the first life
  std::size_t own_bytes_ = 0;
  bool finishing_ = false;
  bool write_failed_ = false;
  std::size_t first_message_bytes_ = message_bytes_max;
  FrameReader reader_;
  FrameWriter writer_;
  std::unique_ptr<Stream> stream_;
  Life life_;
};

}  // namespace pyccl::transport
