// Connections on their own: control links and handshakes.
#include <doctest/doctest.h>

#include <algorithm>

#include "transport/conformance.hpp"
#include "transport/connection.hpp"
#include "transport/framing.hpp"

namespace pyccl::transport::test {

namespace {

class Link final : public ConnectionObserver {
 public:
  void on_open(Connection&) override { ++opened; }
  void on_message(Connection&, ByteView body) override {
    messages.emplace_back(body.begin(), body.end());
    if (when_message) when_message();
  }
  void on_closed(Connection& which, Status status) override {
    CHECK(&which == connection.get());
    ended = std::move(status);
    connection.reset();
  }

  std::unique_ptr<Connection> connection;
  int opened = 0;
  std::vector<Bytes> messages;
  std::optional<Status> ended;
  std::function<void()> when_message;
};

struct Links {
  explicit Links(Harness& harness) : acceptor(harness) {
    acceptor.when_accepted = [this](std::unique_ptr<Stream> stream) {
      accepted.connection = Connection::accepted(std::move(stream), &accepted);
    };
    dialled.connection = Connection::dial(harness.network(), acceptor.address(), &dialled);
  }
  Acceptor acceptor;
  Link accepted;
  Link dialled;
};

void messages(Harness& harness) {
  Links links(harness);
  std::vector<Bytes> sent;
  for (const std::size_t size : {0u, 1u, 100u, 16'320u, 16'321u, 40'000u, message_bytes_max}) {
    sent.push_back(pattern(size, size));
    links.dialled.connection->send_message(sent.back());  // before it is open, too
  }
  REQUIRE(run_until(harness, [&] { return links.accepted.messages.size() == sent.size(); }));
  CHECK(links.dialled.opened == 1);
  CHECK(links.accepted.opened == 0);
  CHECK(links.accepted.messages == sent);
  links.accepted.connection->send_message(sent[3]);
  links.accepted.connection->flush();
  REQUIRE(run_until(harness, [&] { return links.dialled.messages.size() == 1; }));
  CHECK(links.dialled.messages[0] == sent[3]);
  CHECK(links.dialled.connection->remote_address() == links.acceptor.address());
}

// A stranger gets no more memory than its first words may need.
void long_first_message(Harness& harness) {
  Acceptor acceptor(harness);
  Link accepted;
  acceptor.when_accepted = [&](std::unique_ptr<Stream> stream) {
    accepted.connection = Connection::accepted(std::move(stream), &accepted, 1000);
  };
  Link dialled;
  dialled.connection = Connection::dial(harness.network(), acceptor.address(), &dialled);
  SUBCASE("too long") {
    dialled.connection->send_message(pattern(1001, 1));
    REQUIRE(run_until(harness, [&] { return accepted.ended.has_value(); }));
    CHECK(accepted.ended->code() == Code::protocol_violation);
    CHECK(accepted.messages.empty());
  }
  SUBCASE("and a longer one behind it") {
    dialled.connection->send_message(pattern(1000, 1));
    dialled.connection->send_message(pattern(100'000, 1));
    REQUIRE(run_until(harness, [&] { return accepted.messages.size() == 2; }));
  }
}

void refused(Harness& harness) {
  Links links(harness);
  const std::string address = links.acceptor.address();
  links.acceptor.listener.reset();
  Link link;
  link.connection = Connection::dial(harness.network(), address, &link);
  link.connection->send_message(pattern(10, 1));
  link.connection->flush();
  REQUIRE(run_until(harness, [&] { return link.ended.has_value(); }));
  CHECK(link.ended->reason().find("refused") != std::string::npos);
  CHECK(link.opened == 0);
}

// finish() delivers what is queued, although the other side goes on talking.
void finishing(Harness& harness) {
  Links links(harness);
  REQUIRE(run_until(harness, [&] { return links.accepted.connection && links.dialled.opened; }));
  const Bytes body = pattern(700'000, 1);
  for (int i = 0; i < 5; ++i) links.dialled.connection->send_message(body);
  links.accepted.connection->send_message(body);
  links.dialled.connection->finish();
  CHECK(!links.dialled.connection->closed());
  REQUIRE(run_until(harness, [&] { return links.accepted.ended.has_value(); }));
  CHECK(links.accepted.messages.size() == 5);
  CHECK(run_until(harness, [&] { return links.dialled.connection->closed(); }));
  CHECK(!links.dialled.ended);
  CHECK(links.dialled.messages.empty());
}

void closed_by_the_other_side(Harness& harness) {
  Links links(harness);
  REQUIRE(run_until(harness, [&] { return links.accepted.connection && links.dialled.opened; }));
  links.accepted.connection->close();
  CHECK(links.accepted.connection->closed());
  REQUIRE(run_until(harness, [&] { return links.dialled.ended.has_value(); }));
  CHECK(links.dialled.ended->code() == Code::io);
  CHECK(!links.accepted.ended);
}

void destroyed_while_reading(Harness& harness) {
  Links links(harness);
  links.accepted.when_message = [&] { links.accepted.connection.reset(); };
  for (int i = 0; i < 10; ++i) links.dialled.connection->send_message(pattern(100, 1));
  links.dialled.connection->flush();
  REQUIRE(run_until(harness, [&] { return links.dialled.ended.has_value(); }));
  CHECK(links.accepted.messages.size() == 1);
}

// Who does not read is cut off.
void unread(Harness& harness) {
  Acceptor acceptor(harness);
  Link link;
  link.connection = Connection::dial(harness.network(), acceptor.address(), &link);
  REQUIRE(run_until(harness, [&] { return link.opened == 1 && acceptor.ends.size() == 1; }));
  acceptor.ends[0]->stream->watch_readable(false);
  const Bytes body = pattern(message_bytes_max, 1);
  int sent = 0;
  REQUIRE(run_until(harness, [&] {
    if (link.connection) link.connection->send_message(body);
    ++sent;
    return link.ended.has_value() || sent > 1000;
  }));
  REQUIRE(link.ended);
  CHECK(link.ended->code() == Code::limit_exceeded);
}

// A message that no reader would take breaks its own connection and nothing else.
void too_long(Harness& harness) {
  Links links(harness);
  links.dialled.connection->send_message(pattern(message_bytes_max + 1, 1));
  REQUIRE(run_until(harness, [&] { return links.dialled.ended.has_value(); }));
  CHECK(links.dialled.ended->code() == Code::limit_exceeded);
  CHECK(links.accepted.messages.empty());
}

}  // namespace

void connection_conformance(const MakeHarness& make) {
  const std::unique_ptr<Harness> harness = make();
  SUBCASE("messages") { messages(*harness); }
  SUBCASE("a long first message") { long_first_message(*harness); }
  SUBCASE("refused") { refused(*harness); }
  SUBCASE("finishing") { finishing(*harness); }
  SUBCASE("closed by the other side") { closed_by_the_other_side(*harness); }
  SUBCASE("destroyed while reading") { destroyed_while_reading(*harness); }
  SUBCASE("unread") { unread(*harness); }
  SUBCASE("too long") { too_long(*harness); }
}

}  // namespace pyccl::transport::test
