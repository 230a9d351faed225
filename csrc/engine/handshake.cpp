// Link, and the answer to it. A connection that says anything else first is closed.
#include "engine/handshake.hpp"

#include <utility>

#include "protocol/codec.hpp"

namespace pyccl::engine {

static_assert(transport::memory_text_bytes_max <= protocol::memory_text_bytes_max);

Handshake::Handshake(HandshakeHost& host, transport::Network& network, const std::string& address,
                     const protocol::Link& link, Time deadline, transport::SharedMemory* memory)
    : host_(host), dialled_(true), link_(link), deadline_(deadline), memory_(memory) {
  connection_ = transport::Connection::dial(network, address, this);
}

Handshake::Handshake(HandshakeHost& host, std::unique_ptr<transport::Stream> stream, Time deadline)
    : host_(host), dialled_(false), deadline_(deadline) {
  connection_ = transport::Connection::accepted(std::move(stream), this, protocol::link_bytes_max);
}

void Handshake::on_open(transport::Connection& connection) {
  if (memory_ != nullptr) {
    auto offer = memory_->offer(connection.remote_address());
    if (offer.ok()) {
      offer_ = offer.take();
      link_.memory = offer_->text();
    }
  }
  connection.send_message(protocol::encode(protocol::Message(link_)));
  connection.flush();
}

void Handshake::on_message(transport::Connection&, ByteView body) {
  const Result<protocol::Message> message = protocol::decode(body);
  if (!message.ok()) {
    give_up();
    host_.link_ended(*this, message.status());
    return;
  }
  if (!dialled_) {
    const auto* offer = std::get_if<protocol::Link>(&message.value());
    if (offer == nullptr || answered_) {
      give_up();
      host_.link_ended(*this,
                       Status(Code::protocol_violation, "a connection must begin with Link"));
      return;
    }
    answered_ = true;
    link_ = *offer;
    host_.link_offered(*this, link_);
    return;
  }
  if (const auto* refused = std::get_if<protocol::LinkRefused>(&message.value())) {
    const Status status = refused->status;
    give_up();
    host_.link_ended(*this, status.ok() ? Status(Code::io, "refused without a reason") : status);
  } else if (const auto* accepted = std::get_if<protocol::LinkAccepted>(&message.value())) {
    linked(*accepted);
  } else {
    give_up();
    host_.link_ended(*this, Status(Code::protocol_violation, "no answer to Link"));
  }
}

void Handshake::linked(const protocol::LinkAccepted& accepted) {
  if (offer_ == nullptr || accepted.memory.empty()) return host_.link_ended(*this, {});
  auto stream = offer_->complete(accepted.memory);
  if (!stream.ok()) {
    memory_failed_ = true;
    give_up();  // the other side believes in it, so this link is lost
    return host_.link_ended(*this, stream.status());
  }
  through_memory_ = true;
  connection_ = transport::Connection::accepted(stream.take(), this);
  host_.link_ended(*this, {});
}

void Handshake::on_closed(transport::Connection&, Status status) {
  connection_.reset();
  host_.link_ended(*this, status.ok() ? Status(Code::io, "closed by the other side") : status);
}

std::unique_ptr<transport::Connection> Handshake::accept() {
  connection_->send_message(protocol::encode(protocol::Message(protocol::LinkAccepted{})));
  connection_->flush();
  return std::exchange(connection_, nullptr);
}

std::unique_ptr<transport::Connection> Handshake::accept(transport::SharedMemory& memory,
                                                         std::string& why) {
  if (link_.memory.empty()) {
    why = "it offers none";
    return accept();
  }
  auto answer = memory.accept(link_.memory, connection_->remote_address());
  if (!answer.ok()) {
    why = answer.status().reason();
    return accept();
  }
  connection_->send_message(
      protocol::encode(protocol::Message(protocol::LinkAccepted{answer.value().text})));
  connection_->finish();
  link_ = {};
  through_memory_ = true;
  return transport::Connection::accepted(std::move(answer.value().stream), this);
}

void Handshake::refuse(const Status& status) {
  connection_->send_message(protocol::encode(protocol::Message(protocol::LinkRefused{status})));
  connection_->finish();
  link_ = {};
}

std::unique_ptr<transport::Connection> Handshake::take() {
  return std::exchange(connection_, nullptr);
}

void Handshake::give_up() {
  if (connection_ != nullptr) connection_->close();
  connection_.reset();
}

}  // namespace pyccl::engine
