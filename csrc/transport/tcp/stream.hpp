// One TCP connection: being dialled, open, or finished.
#pragma once

#include <optional>
#include <string>

#include "transport/life.hpp"
#include "transport/network.hpp"
#include "transport/poller.hpp"
#include "transport/tcp/socket.hpp"

namespace pyccl::transport::tcp {

class TcpStream final : public Stream, private PollHandler {
 public:
  // Dials. What goes wrong at once is told from the loop.
  TcpStream(Poller& poller, const std::string& address, Duration silence_limit,
            StreamObserver* observer);
  // Takes over an accepted socket.
  TcpStream(Poller& poller, FileDescriptor fd, const SocketAddress& remote, Duration silence_limit);
  ~TcpStream() override;

  void set_observer(StreamObserver* observer) override { observer_ = observer; }
  IoResult write(std::span<const ByteView> parts) override;
  IoResult read(std::span<const MutableByteView> parts) override;
  void watch_writable(bool on) override;
  void watch_readable(bool on) override;
  void end_writes() override;
  void close() override;
  void fail(Status reason) override;
  std::string remote_address() const override { return remote_text_; }
  bool same_host() const override { return same_host_; }
  std::optional<WayMeasurement> measurement() const override;

 private:
  enum class State { connecting, open, closed };

  void on_ready(bool readable, bool writable, bool failed) override;
  void on_posted() override;
  Status start(Duration silence_limit);
  void finish_connecting();
  void opened(const SocketAddress& remote);
  void update_watch();
  void end(Status status);

  Poller& poller_;
  FileDescriptor fd_;
  StreamObserver* observer_;
  State state_;
  bool wants_readable_ = true;
  bool wants_writable_ = false;
  bool same_host_ = false;
  std::string remote_text_;
  std::optional<Status> posted_failure_;
  Life life_;
};

}  // namespace pyccl::transport::tcp
