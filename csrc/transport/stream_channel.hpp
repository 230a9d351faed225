// The channel over N streams: one queue for all, and whoever can write takes the next frame.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "transport/channel.hpp"
#include "transport/life.hpp"
#include "transport/outgoing.hpp"
#include "transport/stream_connection.hpp"

namespace pyccl::transport {

class StreamChannel final : public Channel, private ConnectionOwner {
 public:
  StreamChannel(const ChannelOptions& options, ChannelObserver* observer);
  ~StreamChannel() override;

  void send_message(ByteView body) override;
  void send_segment(const SegmentHeader& header, const Pieces& pieces) override;
  bool has_room() const override;
  void forget(OpId op) override;
  void redirect(ReadToken token) override;
  void refuse(ReadToken token) override { refused_ = token; }
  void adopt(std::unique_ptr<Connection> connection) override;
  std::size_t connections() const override { return connections_.size(); }
  bool same_host() const override;
  void flush() override;
  void tick(Time now) override;
  std::optional<Time> next_deadline() const override;
  std::uint64_t bytes_sent() const override;
  std::uint64_t bytes_received() const override;
  std::optional<WayMeasurement> measurement() const override;
  void close(Status reason) override;

 private:
  void on_message(ByteView body) override;
  ReadToken on_segment(const SegmentHeader& header, MutablePieces& target) override;
  void on_segment_end(const SegmentHeader& header, ReadToken token, bool complete) override;
  void on_read(StreamConnection& connection) override;
  void on_writable(StreamConnection& connection) override;
  void on_unreadable(FrameList& frames) override;
  void on_closed(StreamConnection& connection, Status status) override;

  bool something_queued() const { return !messages_.empty() || !segments_.empty(); }
  std::size_t pump(StreamConnection& connection, std::size_t budget, bool acknowledge);
  void wake();
  void give_up(const Status& why);
  void drop_queues();

  ChannelOptions options_;
  ChannelObserver* observer_;
  bool closed_ = false;
  bool given_up_ = false;
  FramePool pool_;
  FrameList messages_;
  FrameList segments_;
  std::size_t message_bytes_ = 0;  // in messages_
  std::size_t segment_bytes_ = 0;  // in segments_
  bool room_wanted_ = false;
  std::vector<std::unique_ptr<StreamConnection>> connections_;
  ReadToken tokens_ = 0;
  ReadToken refused_ = 0;
  Time now_;
  std::optional<Time> acknowledge_at_;
  std::uint64_t sent_before_ = 0;  // on connections that are gone
  std::uint64_t received_before_ = 0;
  Life life_;
};

}  // namespace pyccl::transport
