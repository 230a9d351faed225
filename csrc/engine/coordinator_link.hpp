// The connection to the coordinator: dialled again and again until the peer is done with it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "base/time.hpp"
#include "protocol/messages.hpp"
#include "transport/connection.hpp"

namespace pyccl::engine {

class CoordinatorLinkHost {
 public:
  virtual ~CoordinatorLinkHost() = default;
  virtual void coordinator_connected() = 0;
  virtual void coordinator_disconnected(const Status&) = 0;
  virtual void coordinator_message(const protocol::Message&) = 0;
};

class CoordinatorLink final : public transport::ConnectionObserver {
 public:
  CoordinatorLink(CoordinatorLinkHost&, transport::Network&, const Clock&,
                  std::vector<std::string> addresses, std::uint64_t seed);

  void start();
  // Thrown away while there is no connection: whoever returns says what is still open.
  void send(const protocol::Message&);
  // Drops the connection and what was read from it, and dials again (rule R12).
  void redial(const std::string& reason);
  // Sends what is queued and ends.
  void finish();
  void close();

  // Where a joiner's time is up.
  Status why_not_admitted() const;

  void flush();
  void tick();
  std::optional<Time> next_deadline() const;

 private:
  void on_open(transport::Connection&) override;
  void on_message(transport::Connection&, ByteView body) override;
  void on_closed(transport::Connection&, Status) override;
  void drop(const Status& reason);

  CoordinatorLinkHost& host_;
  transport::Network& network_;
  const Clock& clock_;
  std::vector<std::string> addresses_;
  Prng prng_;
  std::unique_ptr<transport::Connection> connection_;
  std::vector<std::unique_ptr<transport::Connection>> dropped_;  // freed outside their callbacks
  bool connected_ = false;
  // A coordinator has spoken on this connection; until then anything may be at the other end.
  bool answered_ = false;
  bool ended_ = false;
  std::size_t next_address_ = 0;
  Duration backoff_;
  Time next_dial_;
  Time dial_deadline_;
  Status last_failure_;
};

}  // namespace pyccl::engine
