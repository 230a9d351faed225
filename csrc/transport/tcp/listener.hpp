// A listening socket.
#pragma once

#include <memory>
#include <string>

#include "transport/life.hpp"
#include "transport/network.hpp"
#include "transport/poller.hpp"
#include "transport/tcp/socket.hpp"

namespace pyccl::transport::tcp {

class TcpListener final : public Listener, private PollHandler {
 public:
  static Result<std::unique_ptr<Listener>> open(Poller& poller, const std::string& address,
                                                Duration silence_limit, AcceptObserver* observer);
  TcpListener(Poller& poller, FileDescriptor fd, Duration silence_limit, AcceptObserver* observer);
  ~TcpListener() override;

  std::string address() const override { return to_text(local_address(fd_.get())); }

 private:
  void on_ready(bool readable, bool writable, bool failed) override;
  void refuse_one();

  Poller& poller_;
  FileDescriptor fd_;
  Duration silence_limit_;
  AcceptObserver* observer_;
  FileDescriptor reserve_;
  Life life_;
};

}  // namespace pyccl::transport::tcp
