// The first words on a connection between two peers: Link, and LinkAccepted or LinkRefused. Before
// they have been said the connection belongs to no channel.
#pragma once

#include <memory>
#include <string>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "protocol/messages.hpp"
#include "transport/connection.hpp"

namespace pyccl::engine {

class Handshake;

class HandshakeHost {
 public:
  virtual ~HandshakeHost() = default;
  // Both at most once, one after the other only in this order; `handshake` stays valid during them.
  virtual void link_offered(Handshake&, const protocol::Link&) = 0;  // accepted connections
  virtual void link_ended(Handshake&, Status) = 0;  // dialled: ok means accepted by the other side
};

class Handshake final : public transport::ConnectionObserver {
 public:
  // Dials and offers a link to `link.to`.
  Handshake(HandshakeHost&, transport::Network&, const std::string& address, const protocol::Link&,
            Time deadline);
  // Waits for an offer.
  Handshake(HandshakeHost&, std::unique_ptr<transport::Stream>, Time deadline);

  bool dialled() const { return dialled_; }
  const protocol::Link& link() const { return link_; }
  Time deadline() const { return deadline_; }
  bool over() const { return connection_ == nullptr; }

  // Accepted side: the answer to an offer.
  std::unique_ptr<transport::Connection> accept();
  void refuse(const Status&);
  // Dialling side, from link_ended.
  std::unique_ptr<transport::Connection> take();
  void give_up();

 private:
  void on_open(transport::Connection&) override;
  void on_message(transport::Connection&, ByteView body) override;
  void on_closed(transport::Connection&, Status) override;

  HandshakeHost& host_;
  bool dialled_;
  bool answered_ = false;
  protocol::Link link_;
  Time deadline_;
  std::unique_ptr<transport::Connection> connection_;
};

}  // namespace pyccl::engine
