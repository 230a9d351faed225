// The first words on a connection between two peers: Link, and LinkAccepted or LinkRefused. Before
// they have been said the connection belongs to no channel.
//
// With its Link a dialler may offer to go on through shared memory. If the other side takes that
// up, the link is a connection through memory, and the one that they met on is closed.
#pragma once

#include <memory>
#include <string>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "protocol/messages.hpp"
#include "transport/connection.hpp"
#include "transport/shared_memory.hpp"

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
  // Dials and offers a link to `link.to`, through `memory` if there is any and it will do.
  Handshake(HandshakeHost&, transport::Network&, const std::string& address, const protocol::Link&,
            Time deadline, transport::SharedMemory* memory);
  // Waits for an offer.
  Handshake(HandshakeHost&, std::unique_ptr<transport::Stream>, Time deadline);

  bool dialled() const { return dialled_; }
  const protocol::Link& link() const { return link_; }
  Time deadline() const { return deadline_; }
  bool over() const { return connection_ == nullptr; }

  // Accepted side: the answer to an offer. With `memory` an offer of it is taken up if it proves
  // true; why it has not, if it has not, stands in `why` afterwards.
  std::unique_ptr<transport::Connection> accept();
  std::unique_ptr<transport::Connection> accept(transport::SharedMemory& memory, std::string& why);
  void refuse(const Status&);
  // Dialling side, from link_ended.
  std::unique_ptr<transport::Connection> take();
  void give_up();
  // Dialling side: shared memory was offered, and this connection is through it.
  bool offered_memory() const { return !link_.memory.empty(); }
  bool through_memory() const { return through_memory_; }
  bool memory_failed() const { return memory_failed_; }  // what the other side took up is not there

 private:
  void linked(const protocol::LinkAccepted&);
  void on_open(transport::Connection&) override;
  void on_message(transport::Connection&, ByteView body) override;
  void on_closed(transport::Connection&, Status) override;

  HandshakeHost& host_;
  bool dialled_;
  bool answered_ = false;
  protocol::Link link_;
  Time deadline_;
  transport::SharedMemory* memory_ = nullptr;
  std::unique_ptr<transport::MemoryOffer> offer_;
  bool through_memory_ = false;
  bool memory_failed_ = false;
  std::unique_ptr<transport::Connection> connection_;
};

}  // namespace pyccl::engine
