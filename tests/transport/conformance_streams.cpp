// Streams: dialling, refusal, flow, ends, and what callbacks may do.
#include <doctest/doctest.h>

#include <array>
#include <span>
#include <string_view>

#include "transport/conformance.hpp"

namespace pyccl::transport::test {

namespace {

struct Pair {
  explicit Pair(Harness& harness) : acceptor(harness) {
    dialled.dial(harness, acceptor.address());
    REQUIRE(run_until(harness, [&] { return dialled.connected && acceptor.ends.size() == 1; }));
  }
  StreamEnd& accepted() { return *acceptor.ends[0]; }

  Acceptor acceptor;
  StreamEnd dialled;
};

ByteView text(std::string_view words) { return std::as_bytes(std::span(words)); }

Bytes bytes_of(std::string_view words) {
  const ByteView view = text(words);
  return {view.begin(), view.end()};
}

void both_directions(Harness& harness) {
  Pair pair(harness);
  pair.dialled.send(bytes_of("from the dialler"));
  pair.accepted().send(bytes_of("from the listener"));
  CHECK(run_until(harness, [&] {
    return pair.accepted().received == bytes_of("from the dialler") &&
           pair.dialled.received == bytes_of("from the listener");
  }));
  CHECK(pair.dialled.stream->remote_address() == pair.acceptor.address());
  CHECK(!pair.accepted().stream->remote_address().empty());
  CHECK(pair.dialled.stream->same_host() == harness.same_host());
  CHECK(pair.accepted().stream->same_host() == harness.same_host());
}

void refusal(Harness& harness) {
  std::string address;
  {
    Acceptor acceptor(harness);
    address = acceptor.address();
  }
  StreamEnd end;
  end.dial(harness, address);
  CHECK(!end.ended());  // never from inside the call
  REQUIRE(run_until(harness, [&] { return end.ended(); }));
  CHECK(end.failed);
  CHECK(!end.connected);
  CHECK(end.end->code() == Code::io);
  CHECK(end.end->reason().find("refused") != std::string::npos);
}

void address_in_use(Harness& harness) {
  Acceptor acceptor(harness);
  auto second = harness.network().listen(acceptor.address(), &acceptor);
  REQUIRE(!second.ok());
  CHECK(second.status().code() == Code::address_in_use);
  CHECK(second.status().reason().find(acceptor.address()) != std::string::npos);
}

void large_transfers(Harness& harness) {
  Pair pair(harness);
  const Bytes up = pattern(5'000'003, 1);
  const Bytes down = pattern(3'000'001, 2);
  pair.dialled.send(up);
  pair.accepted().send(down);
  CHECK(run_until(harness, [&] {
    return pair.accepted().received.size() >= up.size() &&
           pair.dialled.received.size() >= down.size();
  }));
  CHECK(pair.accepted().received == up);
  CHECK(pair.dialled.received == down);
}

// A writer that nobody reads from is stopped, not buffered without end.
void back_pressure(Harness& harness) {
  Pair pair(harness);
  pair.accepted().stream->watch_readable(false);
  const Bytes block = pattern(1 << 20, 3);
  const std::array<ByteView, 1> parts{ByteView(block)};
  std::size_t taken = 0;
  constexpr std::size_t limit = 512u << 20;
  for (int refusals = 0; refusals < 20 && taken < limit;) {
    const IoResult result = pair.dialled.stream->write(parts);
    REQUIRE(result.status.ok());
    taken += result.bytes;
    refusals = result.bytes == 0 ? refusals + 1 : 0;
    if (result.bytes == 0) harness.step(harness.now() + 5ms);
  }
  CHECK(taken < limit);
  CHECK(pair.accepted().readable_calls == 0);
  pair.accepted().stream->watch_readable(true);
  CHECK(run_until(harness, [&] { return pair.accepted().received.size() == taken; }));
}

void end_after_data(Harness& harness) {
  Pair pair(harness);
  const Bytes data = pattern(20'000, 4);
  const std::array<ByteView, 1> parts{ByteView(data)};
  pair.accepted().read_step = 1000;
  const std::size_t taken = pair.dialled.stream->write(parts).bytes;
  REQUIRE(taken > 0);
  pair.dialled.stream->close();
  pair.dialled.stream->close();  // idempotent
  REQUIRE(run_until(harness, [&] { return pair.accepted().ended(); }));
  CHECK(pair.accepted().end->code() == Code::io);
  CHECK(pair.accepted().received == Bytes(data.begin(), data.begin() + std::ptrdiff_t(taken)));
  CHECK(!pair.dialled.ended());  // who closes hears nothing
}

// One direction has ended, the other one goes on.
void half_closed(Harness& harness) {
  Pair pair(harness);
  pair.accepted().when_readable = [] {};  // not before the end has been sent
  pair.dialled.send(bytes_of("a question"));
  REQUIRE(run_until(harness, [&] { return pair.accepted().readable_calls > 0; }));
  pair.dialled.stream->end_writes();
  pair.dialled.stream->end_writes();  // idempotent
  const std::array<ByteView, 1> parts{text("too late")};
  CHECK(!pair.dialled.stream->write(parts).status.ok());
  StreamEnd& accepted = pair.accepted();
  Bytes heard;
  accepted.when_readable = [&] {
    Bytes bytes(100);
    const std::array<MutableByteView, 1> target{MutableByteView(bytes)};
    const IoResult result = accepted.stream->read(target);
    heard.insert(heard.end(), bytes.begin(), bytes.begin() + std::ptrdiff_t(result.bytes));
    if (result.status.ok()) return;
    accepted.end = result.status;
    accepted.stream->watch_readable(false);
  };
  REQUIRE(run_until(harness, [&] { return accepted.ended(); }));
  CHECK(heard == bytes_of("a question"));
  accepted.send(bytes_of("an answer"));
  CHECK(run_until(harness, [&] { return pair.dialled.received == bytes_of("an answer"); }));
  CHECK(!pair.dialled.ended());
  accepted.stream->close();
  CHECK(run_until(harness, [&] { return pair.dialled.ended(); }));
}

// A failed write leaves the reading side to deliver what the other side had said before.
void last_words(Harness& harness) {
  Pair pair(harness);
  const Bytes words = bytes_of("evicted, and this is why");
  const std::array<ByteView, 1> parts{ByteView(words)};
  const std::size_t said = pair.accepted().stream->write(parts).bytes;
  REQUIRE(said > 0);
  pair.accepted().stream->close();
  Status write_status;
  pair.dialled.when_readable = [&] {
    write_status = pair.dialled.stream->write(parts).status;
    if (!write_status.ok()) pair.dialled.when_readable = nullptr;
  };
  REQUIRE(run_until(harness, [&] { return pair.dialled.ended(); }));
  CHECK(!write_status.ok());
  CHECK(!pair.dialled.failed);
  CHECK(pair.dialled.received == Bytes(words.begin(), words.begin() + std::ptrdiff_t(said)));
}

void level_triggered(Harness& harness) {
  Pair pair(harness);
  pair.accepted().read_step = 1;
  pair.dialled.send(bytes_of("byte by byte"));
  CHECK(run_until(harness, [&] { return pair.accepted().received == bytes_of("byte by byte"); }));
  CHECK(pair.accepted().readable_calls >= 12);
}

void watching(Harness& harness) {
  Pair pair(harness);
  std::size_t writable_calls = 0;
  pair.dialled.when_writable = [&] { ++writable_calls; };
  settle(harness);
  CHECK(writable_calls == 0);
  pair.dialled.stream->watch_writable(true);
  CHECK(run_until(harness, [&] { return writable_calls >= 3; }));
  pair.dialled.stream->watch_writable(false);
  const std::size_t before = writable_calls;
  settle(harness);
  CHECK(writable_calls == before);

  pair.dialled.stream->watch_readable(false);
  pair.accepted().send(bytes_of("later"));
  settle(harness);
  CHECK(pair.dialled.readable_calls == 0);
  pair.dialled.stream->watch_readable(true);
  CHECK(run_until(harness, [&] { return pair.dialled.received == bytes_of("later"); }));
}

void failing(Harness& harness) {
  Pair pair(harness);
  pair.dialled.stream->fail({Code::limit_exceeded, "enough"});
  CHECK(!pair.dialled.ended());
  const std::array<ByteView, 1> parts{text("too late")};
  CHECK(!pair.dialled.stream->write(parts).status.ok());
  REQUIRE(run_until(harness, [&] { return pair.dialled.ended() && pair.accepted().ended(); }));
  CHECK(pair.dialled.end->code() == Code::limit_exceeded);

  Pair silent(harness);
  silent.dialled.stream->fail({Code::limit_exceeded, "enough"});
  silent.dialled.stream.reset();  // destroyed before the loop comes to it
  REQUIRE(run_until(harness, [&] { return silent.accepted().ended(); }));
  CHECK(!silent.dialled.ended());
}

void destroyed_in_callbacks(Harness& harness) {
  Acceptor acceptor(harness);
  const std::string address = acceptor.address();
  std::vector<std::unique_ptr<StreamEnd>> ends;
  for (int i = 0; i < 4; ++i) ends.push_back(std::make_unique<StreamEnd>());
  const auto dial = [&](std::size_t i) { ends[i]->dial(harness, address); };
  ends[0]->when_connected = [&] { ends[0]->stream.reset(); };
  dial(0);
  CHECK(run_until(harness, [&] { return ends[0]->connected && ends[0]->stream == nullptr; }));

  ends[1]->when_readable = [&] { ends[1]->stream.reset(); };
  ends[1]->when_writable = [&] { CHECK(ends[1]->stream != nullptr); };
  dial(1);
  REQUIRE(run_until(harness, [&] { return acceptor.ends.size() == 2; }));
  acceptor.ends[1]->send(bytes_of("x"));
  ends[1]->stream->watch_writable(true);
  CHECK(run_until(harness, [&] { return ends[1]->stream == nullptr; }));

  ends[2]->when_writable = [&] { ends[2]->stream.reset(); };
  dial(2);
  REQUIRE(run_until(harness, [&] { return ends[2]->connected; }));
  ends[2]->stream->watch_writable(true);
  CHECK(run_until(harness, [&] { return ends[2]->stream == nullptr; }));

  acceptor.listener.reset();
  ends[3]->when_failed = [&] { ends[3]->stream.reset(); };
  dial(3);
  CHECK(run_until(harness, [&] { return ends[3]->failed; }));
  CHECK(ends[3]->stream == nullptr);
}

// Two streams have something to say; whichever comes first silences the other for good.
void destroyed_by_another(Harness& harness) {
  Acceptor acceptor(harness);
  StreamEnd left, right;
  left.dial(harness, acceptor.address());
  right.dial(harness, acceptor.address());
  REQUIRE(run_until(
      harness, [&] { return left.connected && right.connected && acceptor.ends.size() == 2; }));
  int calls = 0;
  left.when_readable = [&] { ++calls, left.stream.reset(), right.stream.reset(); };
  right.when_readable = left.when_readable;
  left.when_writable = right.when_writable = [] {};
  for (auto& end : acceptor.ends) end->send(bytes_of("now"));
  CHECK(run_until(harness, [&] { return calls > 0; }));
  settle(harness);
  CHECK(calls == 1);
}

}  // namespace

void stream_conformance(const MakeHarness& make) {
  const std::unique_ptr<Harness> harness = make();
  SUBCASE("both directions") { both_directions(*harness); }
  SUBCASE("refusal") { refusal(*harness); }
  SUBCASE("address in use") { address_in_use(*harness); }
  SUBCASE("large transfers") { large_transfers(*harness); }
  SUBCASE("back pressure") { back_pressure(*harness); }
  SUBCASE("end after data") { end_after_data(*harness); }
  SUBCASE("half closed") { half_closed(*harness); }
  SUBCASE("last words") { last_words(*harness); }
  SUBCASE("level triggered") { level_triggered(*harness); }
  SUBCASE("watching") { watching(*harness); }
  SUBCASE("failing") { failing(*harness); }
  SUBCASE("destroyed in callbacks") { destroyed_in_callbacks(*harness); }
  SUBCASE("destroyed by another") { destroyed_by_another(*harness); }
}

}  // namespace pyccl::transport::test
