// The mesh on its own: dials whose outcome comes when nobody waits for it any more, and peers that
// want different numbers of connections.
#include "engine/mesh.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "transport/inproc/network.hpp"

using namespace pyccl;
using namespace pyccl::engine;

namespace {

constexpr PeerId self{9};
constexpr PeerId other{5};

class ManualClock final : public Clock {
 public:
  Time now() const override { return time; }
  Time time;
};

// Dials that stay open until the test ends them.
class ManualNetwork final : public transport::Network {
 public:
  struct Dialled {
    transport::StreamObserver* observer = nullptr;
    bool closed = false;
  };

  std::unique_ptr<transport::Stream> dial(const std::string&,
                                          transport::StreamObserver* observer) override {
    dials.push_back(std::make_shared<Dialled>(Dialled{observer, false}));
    return std::make_unique<Stream>(dials.back());
  }
  Result<std::unique_ptr<transport::Listener>> listen(const std::string&,
                                                      transport::AcceptObserver*) override {
    return Status(Code::io, "not here");
  }
  void refuse(std::size_t index) {
    if (!dials[index]->closed) dials[index]->observer->on_failed(Status(Code::io, "refused"));
  }

  std::vector<std::shared_ptr<Dialled>> dials;

 private:
  class Stream final : public transport::Stream {
   public:
    explicit Stream(std::shared_ptr<Dialled> dialled) : dialled_(std::move(dialled)) {}
    ~Stream() override { dialled_->closed = true; }
    void set_observer(transport::StreamObserver* observer) override {
      dialled_->observer = observer;
    }
    transport::IoResult write(std::span<const ByteView>) override { return {}; }
    transport::IoResult read(std::span<const MutableByteView>) override { return {}; }
    void watch_writable(bool) override {}
    void watch_readable(bool) override {}
    void end_writes() override {}
    void close() override { dialled_->closed = true; }
    void fail(Status) override { dialled_->closed = true; }
    std::string remote_address() const override { return "nowhere"; }
    bool same_host() const override { return false; }

   private:
    std::shared_ptr<Dialled> dialled_;
  };
};

class Host final : public MeshHost {
 public:
  void mesh_prepared(Epoch epoch, std::vector<PeerId> missing) override {
    prepared.emplace_back(epoch, std::move(missing));
  }
  void mesh_broken(PeerId) override { ++broken; }
  void mesh_restored(PeerId) override {}
  void on_segment(PeerId, const transport::SegmentHeader&, transport::ReadToken,
                  transport::MutablePieces&) override {}
  void on_segment_end(PeerId, const transport::SegmentHeader&, transport::ReadToken,
                      bool) override {}
  void on_message(PeerId, ByteView) override {}
  void on_room(PeerId) override {}
  void on_connections(PeerId, std::size_t) override {}

  std::vector<std::pair<Epoch, std::vector<PeerId>>> prepared;
  int broken = 0;
};

// Keeps what was dialled, to count it and to break it.
class WatchedNetwork final : public transport::Network {
 public:
  std::unique_ptr<transport::Stream> dial(const std::string& address,
                                          transport::StreamObserver* observer) override {
    auto stream = inproc.dial(address, observer);
    dials.push_back(stream.get());
    return stream;
  }
  Result<std::unique_ptr<transport::Listener>> listen(
      const std::string& address, transport::AcceptObserver* observer) override {
    return inproc.listen(address, observer);
  }

  transport::inproc::InprocNetwork inproc;
  std::vector<transport::Stream*> dials;  // gone, if their connection is
};

// Dials, and then says nothing.
class Stranger final : public transport::StreamObserver {
 public:
  void on_connected() override { connected = true; }
  void on_readable() override {
    closed = true;
    stream->close();
  }
  void on_writable() override {}
  void on_failed(Status) override { closed = true; }

  bool connected = false;
  bool closed = false;
  std::unique_ptr<transport::Stream> stream;
};

// Two peers of which the first dials.
struct Pair {
  Pair(std::uint32_t first_wants, std::uint32_t second_wants)
      : first(options(self, "first:1", first_wants), network, clock, first_host),
        second(options(other, "second:1", second_wants), network, clock, second_host) {
    REQUIRE(first.listen().ok());
    REQUIRE(second.listen().ok());
    second.connect({1, 2}, {7}, {{self, "default", {}, {"first:1"}}});
    first.connect({1, 2}, {7}, {{other, "default", {}, {"second:1"}}});
    advance(0s);
  }

  static MeshOptions options(PeerId peer, std::string listen, std::uint32_t connections) {
    MeshOptions options;
    options.self = peer;
    options.listen = std::move(listen);
    options.connections = connections;
    options.segment_bytes = 1024;
    return options;
  }

  void advance(Duration by) {
    const Time end = clock.time + by;
    for (;;) {
      do {
        first.flush();
        second.flush();
      } while (network.inproc.pump());
      const auto due = earlier(first.next_deadline(), second.next_deadline());
      if (clock.time == end && !(due && *due <= end)) return;
      clock.time = std::max(clock.time, std::min(end, due.value_or(end)));
      first.tick();
      second.tick();
    }
  }

  std::size_t connections() { return first.channel(other)->connections(); }
  void break_dialled(std::size_t index) { network.dials[index]->fail(Status(Code::io, "broken")); }

  WatchedNetwork network;
  ManualClock clock;
  Host first_host;
  Host second_host;
  Mesh first;
  Mesh second;
};

}  // namespace

// A joiner may be proposed, left out, and proposed again while the first dials are still under way.
TEST_CASE("dials to a peer that was left out don't count when it is proposed again") {
  ManualNetwork network;
  ManualClock clock;
  Host host;
  MeshOptions options;
  options.self = self;
  options.connections = 2;
  options.segment_bytes = 1024;
  Mesh mesh(options, network, clock, host);
  const protocol::MemberInfo joiner{other, "default", {}, {"10.0.0.2:5000"}};
  protocol::View alone;
  alone.members.push_back({self, "default", {}, {}});

  mesh.connect({1, 2}, {7}, {joiner});
  REQUIRE(network.dials.size() == 2);
  alone.epoch = {1, 3};
  mesh.install(alone);
  CHECK(network.dials[0]->closed);
  mesh.connect({1, 4}, {7}, {joiner});
  REQUIRE(network.dials.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) network.refuse(i);
  // It goes on dialling, and tells in time that it had no luck.
  clock.time = clock.time + 1s;
  mesh.tick();
  CHECK(network.dials.size() == 6);
  clock.time = clock.time + options.timing.prepare_limit;
  mesh.tick();
  REQUIRE(host.prepared.size() == 1);
  CHECK(host.prepared[0].first == Epoch{1, 4});
  CHECK(host.prepared[0].second == std::vector{other});
}

TEST_CASE("a peer that takes few connections is not asked for more again and again") {
  Pair pair(64, 1);
  REQUIRE(pair.connections() == 2);  // twice what it wants itself
  CHECK(pair.network.dials.size() == 64);
  pair.advance(50s);
  CHECK(pair.network.dials.size() == 64);

  SUBCASE("one that breaks is replaced") {
    pair.break_dialled(0);
    pair.advance(1s);
    CHECK(pair.connections() == 2);
    pair.advance(50s);
    CHECK(pair.network.dials.size() <= 66);
  }
  SUBCASE("so are all, without a volley") {
    pair.break_dialled(0);
    pair.break_dialled(1);
    pair.advance(1s);
    CHECK(pair.first_host.broken == 1);
    CHECK(pair.connections() == 2);
    pair.advance(50s);
    CHECK(pair.network.dials.size() <= 67);
  }
  SUBCASE("it is asked now and then, for what it counts may be dead") {
    pair.advance(600s);
    CHECK(pair.network.dials.size() > 66);
    CHECK(pair.network.dials.size() < 76);
    CHECK(pair.connections() == 2);
  }
}

TEST_CASE("a peer may want fewer connections than its dialler") {
  Pair pair(4, 2);
  CHECK(pair.connections() == 4);
  pair.break_dialled(2);
  pair.advance(1s);
  CHECK(pair.connections() == 4);
  CHECK(pair.network.dials.size() == 5);
}

TEST_CASE("strangers who say nothing keep no member out") {
  Pair pair(2, 2);
  std::vector<Stranger> strangers(700);
  for (std::size_t i = 0; i < strangers.size(); ++i) {
    if (i % 100 == 0) pair.advance(10ms);
    strangers[i].stream = pair.network.inproc.dial("second:1", &strangers[i]);
  }
  pair.advance(10ms);
  const auto closed = std::ranges::count_if(strangers, &Stranger::closed);
  CHECK(closed == 700 - 512);
  CHECK(strangers.front().closed);
  pair.break_dialled(0);
  pair.advance(1s);
  CHECK(pair.connections() == 2);
  // They are not waited for without end either.
  pair.advance(3s);
  CHECK(std::ranges::all_of(strangers, &Stranger::closed));
}
