// CoordinatorHost over in-process streams and a clock that the test moves: what strangers may do to
// it, whom a connection belongs to, and what happens when the state can't be written.
#include "engine/coordinator_host.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <list>

#include "protocol/codec.hpp"
#include "transport/inproc/network.hpp"

using namespace pyccl;
using engine::CoordinatorHost;

namespace {

struct ManualClock final : Clock {
  Time time{1'000'000'000};
  Time now() const override { return time; }
};

struct MemoryStore final : engine::StateStore {
  std::vector<protocol::CoordinatorState> written;
  bool fails = false;
  Status write(const protocol::CoordinatorState& state) override {
    if (fails) return Status(Code::io, "the disk is full");
    written.push_back(state);
    return {};
  }
};

// A peer's end of a control connection, driven by hand.
struct Client final : transport::ConnectionObserver {
  Client(transport::Network& network, const std::string& address)
      : connection(transport::Connection::dial(network, address, this)) {}

  void on_open(transport::Connection&) override {}
  void on_message(transport::Connection&, ByteView body) override {
    auto message = protocol::decode(body);
    REQUIRE(message.ok());
    messages.push_back(message.take());
  }
  void on_closed(transport::Connection&, Status) override { closed = true; }

  void say(const protocol::Message& message) {
    connection->send_message(protocol::encode(message));
    connection->flush();
  }

  // The newest message of a kind; none if it has not come.
  template <class Kind>
  const Kind* heard() const {
    for (auto each = messages.rbegin(); each != messages.rend(); ++each) {
      if (const auto* found = std::get_if<Kind>(&*each)) return found;
    }
    return nullptr;
  }

  std::vector<protocol::Message> messages;
  bool closed = false;
  std::unique_ptr<transport::Connection> connection;
};

// A stream that sends any bytes.
struct RawStream final : transport::StreamObserver {
  RawStream(transport::Network& network, const std::string& address)
      : stream(network.dial(address, this)) {}
  void on_connected() override {}
  void on_readable() override {
    std::array<std::byte, 256> piece;
    const MutableByteView view(piece);
    const auto result = stream->read({&view, 1});
    if (!result.status.ok()) end();
  }
  void on_writable() override {}
  void on_failed(Status) override { end(); }
  void end() {
    closed = true;
    stream->close();
  }
  void write(const std::string& text) {
    const ByteView view = std::as_bytes(std::span(text));
    stream->write({&view, 1});
  }

  bool closed = false;
  std::unique_ptr<transport::Stream> stream;
};

struct DeafListener final : transport::AcceptObserver {
  void on_accepted(std::unique_ptr<transport::Stream>) override { ++accepted; }
  int accepted = 0;
};

struct World {
  explicit World(std::optional<protocol::CoordinatorState> recovered = std::nullopt) {
    engine::CoordinatorHostOptions options;
    options.listen = "coordinator:1";
    options.machine.fresh_run = RunId{42};
    options.recovered = std::move(recovered);
    auto opened = CoordinatorHost::open(options, network, clock, store);
    REQUIRE(opened.ok());
    host = opened.take();
  }

  // Until nobody has anything left to say.
  void settle() {
    for (int turn = 0; turn < 10'000; ++turn) {
      const bool moved = network.pump();
      host->end_turn();
      if (!moved && !network.pump()) return;
    }
    FAIL("never settles");
  }

  void advance(Duration by) {
    const Time end = clock.time + by;
    for (;;) {
      const auto due = host->next_deadline();
      clock.time = std::max(clock.time, std::min(end, due.value_or(end)));
      if (due && *due <= clock.time) host->tick();
      settle();
      if (clock.time == end) return;
    }
  }

  Client& dial() { return clients.emplace_back(network, host->address()); }

  Client& join(std::uint64_t peer, std::string address) {
    Client& client = dial();
    client.say(hello(peer, std::move(address)));
    settle();
    return client;
  }

  static protocol::Hello hello(std::uint64_t peer, std::string address) {
    protocol::Hello hello;
    hello.member.peer = PeerId{peer};
    hello.member.group = "default";
    hello.member.addresses = {std::move(address)};
    return hello;
  }

  std::size_t log_lines(const std::string& text) const {
    return static_cast<std::size_t>(
        std::count_if(host->log.begin(), host->log.end(),
                      [&](const auto& line) { return line.text.find(text) != std::string::npos; }));
  }

  transport::inproc::InprocNetwork network{16 * 1024};
  ManualClock clock;
  MemoryStore store;
  std::unique_ptr<CoordinatorHost> host;
  std::list<Client> clients;
};

// Two members: the first is admitted at once, the second at the boundary that the first calls.
struct Pair : World {
  Client& first = join(1, "peer:1");
  Client& second = join(2, "peer:2");

  Pair() {
    const Epoch alone = view_of(first).epoch;
    first.say(protocol::Update{alone});
    settle();
    first.say(nothing_open(alone));
    for (Client* each : {&first, &second}) {
      const auto* prepare = each->heard<protocol::Prepare>();
      REQUIRE(prepare != nullptr);
      each->say(protocol::Prepared{prepare->view.epoch, {}});
    }
    settle();
    REQUIRE(view_of(first).members.size() == 2);
    REQUIRE(view_of(second).members.size() == 2);
  }

  static protocol::Report nothing_open(Epoch epoch) {
    protocol::Report report;
    report.epoch = epoch;
    return report;
  }

  static const protocol::View& view_of(const Client& client) {
    const auto* view = client.heard<protocol::View>();
    REQUIRE(view != nullptr);
    return *view;
  }
};

}  // namespace

TEST_CASE("the first peer is admitted, and its view is written before it is sent") {
  World world;
  REQUIRE(world.store.written.size() == 1);  // the incarnation
  Client& client = world.join(7, "0.0.0.0:99");
  const auto* view = client.heard<protocol::View>();
  REQUIRE(view != nullptr);
  CHECK(view->run == RunId{42});
  CHECK(world.store.written.back().view == *view);
  // An address without a host gets the one that the connection comes from.
  const std::string address = view->members.front().addresses.front();
  CHECK_FALSE(address.starts_with("0.0.0.0"));
  CHECK(address.ends_with(":99"));
}

TEST_CASE("what is no protocol closes its own connection and nothing else") {
  World world;
  Client& member = world.join(1, "peer:1");
  SUBCASE("garbage instead of frames") {
    RawStream raw(world.network, world.host->address());
    world.settle();
    raw.write("GET / HTTP/1.1\r\nHost: coordinator\r\nAccept: everything that there is\r\n\r\n");
    world.settle();
    CHECK(raw.closed);
    CHECK(world.log_lines("was closed") == 1);
  }
  SUBCASE("a frame whose body is no message") {
    Client& stranger = world.dial();
    const Bytes body(40, std::byte{0xee});
    stranger.connection->send_message(body);
    stranger.connection->flush();
    world.settle();
    REQUIRE(stranger.heard<protocol::NotAdmitted>() != nullptr);
    CHECK(stranger.closed);
  }
  SUBCASE("a message before the introduction") {
    Client& stranger = world.dial();
    stranger.say(protocol::Update{{1, 1}});
    world.settle();
    REQUIRE(stranger.heard<protocol::NotAdmitted>() != nullptr);
    CHECK(stranger.heard<protocol::NotAdmitted>()->status.code() == Code::protocol_violation);
    CHECK(stranger.closed);
  }
  SUBCASE("another version of the protocol") {
    Client& stranger = world.dial();
    auto hello = World::hello(9, "peer:9");
    hello.version = protocol::version + 1;
    stranger.say(hello);
    world.settle();
    REQUIRE(stranger.heard<protocol::NotAdmitted>() != nullptr);
    CHECK(stranger.heard<protocol::NotAdmitted>()->status.reason().find("version") !=
          std::string::npos);
    CHECK(stranger.closed);
  }
  SUBCASE("an introduction as nobody") {
    Client& stranger = world.dial();
    stranger.say(World::hello(0, "peer:9"));
    world.settle();
    CHECK(stranger.closed);
  }
  SUBCASE("a peer that turns into another one") {
    Client& stranger = world.join(8, "peer:8");
    stranger.say(World::hello(9, "peer:9"));
    world.settle();
    CHECK(stranger.closed);
  }
  CHECK_FALSE(member.closed);
  CHECK(world.host->machine()->view().members.size() == 1);
}

TEST_CASE("a connection that says nothing is closed in time") {
  World world;
  RawStream silent(world.network, world.host->address());
  world.settle();
  world.advance(4900ms);
  CHECK_FALSE(silent.closed);
  world.advance(200ms);
  CHECK(silent.closed);
  CHECK(world.host->connection_count() == 0);
}

TEST_CASE("a flood of strangers takes bounded room and keeps nobody out") {
  World world;
  std::list<RawStream> flood;
  for (int i = 0; i < 600; ++i) {
    flood.emplace_back(world.network, world.host->address());
    if (i % 50 == 0) world.settle();
  }
  world.settle();
  CHECK(world.host->connection_count() == engine::strangers_max);
  CHECK(std::count_if(flood.begin(), flood.end(), [](auto& each) { return each.closed; }) == 344);
  CHECK(world.host->log.size() < 30);
  Client& member = world.join(1, "peer:1");
  CHECK(member.heard<protocol::View>() != nullptr);
  for (int second = 0; second < 6; ++second) {
    member.say(protocol::Heartbeat{});
    world.advance(1s);
  }
  CHECK(world.host->connection_count() == 1);
}

TEST_CASE("a peer's second connection replaces the first (R12)") {
  Pair pair;
  Client& again = pair.dial();
  again.say(protocol::Register{protocol::version, PeerId{2}, Pair::view_of(pair.second)});
  pair.settle();
  CHECK(pair.second.closed);
  CHECK_FALSE(again.closed);
  CHECK(again.heard<protocol::Welcome>() != nullptr);
  pair.advance(1s);
  CHECK(pair.host->machine()->view().members.size() == 2);
  CHECK(again.heard<protocol::Heartbeat>() != nullptr);
}

TEST_CASE("a peer whose connection breaks is dialled: refused means dead at once") {
  Pair pair;
  const Time before = pair.clock.time;
  pair.second.connection->close();
  pair.settle();
  REQUIRE(pair.first.heard<protocol::Freeze>() != nullptr);
  pair.first.say(Pair::nothing_open(Pair::view_of(pair.first).epoch));
  pair.settle();
  CHECK(Pair::view_of(pair.first).members.size() == 1);
  CHECK(pair.clock.time == before);
}

TEST_CASE("a peer whose connection breaks has a grace when it can still be reached") {
  Pair pair;
  DeafListener alive;
  auto listener = pair.network.listen("peer:2", &alive);
  REQUIRE(listener.ok());
  pair.second.connection->close();
  pair.settle();
  CHECK(alive.accepted == 1);
  CHECK(pair.first.heard<protocol::Freeze>() == nullptr);
  Client& again = pair.dial();
  again.say(protocol::Register{protocol::version, PeerId{2}, Pair::view_of(pair.second)});
  pair.settle();
  pair.first.say(protocol::Heartbeat{});
  pair.advance(3s);
  CHECK(pair.first.heard<protocol::Freeze>() == nullptr);
}

TEST_CASE("a view that can't be written is not sent, and the coordinator begins anew") {
  World world;
  world.store.fails = true;
  Client& client = world.join(1, "peer:1");
  CHECK(client.heard<protocol::View>() == nullptr);
  CHECK(client.closed);
  CHECK(world.host->machine() == nullptr);
  CHECK(world.log_lines("the disk is full") == 1);
  // Whoever comes while the disk is full is turned away.
  Client& early = world.join(1, "peer:1");
  CHECK(early.closed);
  world.advance(3s);
  CHECK(world.host->machine() == nullptr);

  world.store.fails = false;
  world.advance(2s);
  REQUIRE(world.host->machine() != nullptr);
  CHECK(world.host->incarnation() == 2);
  Client& again = world.join(1, "peer:1");
  REQUIRE(again.heard<protocol::View>() != nullptr);
  CHECK(again.heard<protocol::View>()->epoch.incarnation == 2);
}

// One late probe more than the state can bear: the last member's end is a view to be written.
TEST_CASE("late probes end together when a view can't be written") {
  Pair pair;
  for (Client* each : {&pair.first, &pair.second}) each->connection->close();
  // They hear of the ends and dial both; no answer comes, since nothing is moved any more.
  REQUIRE(pair.network.pump());
  pair.host->end_turn();
  pair.clock.time = pair.clock.time + 10s;
  pair.store.fails = true;
  pair.host->tick();
  CHECK(pair.host->machine() == nullptr);
  CHECK(pair.log_lines("the disk is full") == 1);

  pair.store.fails = false;
  pair.advance(2s);
  CHECK(pair.host->incarnation() == 2);
}

TEST_CASE("a restarted coordinator has the next incarnation and waits for its members") {
  protocol::CoordinatorState state;
  {
    Pair pair;
    state = pair.store.written.back();
  }
  World world(state);
  CHECK(world.host->incarnation() == 2);
  CHECK(world.store.written.back().incarnation == 2);
  for (std::uint64_t peer : {1, 2}) {
    Client& member = world.dial();
    member.say(protocol::Register{protocol::version, PeerId{peer}, state.view});
    world.settle();
    REQUIRE(member.heard<protocol::Welcome>() != nullptr);
    CHECK(member.heard<protocol::Welcome>()->incarnation == 2);
  }
  CHECK(world.host->machine()->view().members.size() == 2);
}
