// The mesh on its own: dials whose outcome comes when nobody waits for it any more.
#include "engine/mesh.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <vector>

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
  void mesh_broken(PeerId) override {}
  void mesh_restored(PeerId) override {}
  void on_segment(PeerId, const transport::SegmentHeader&, transport::ReadToken,
                  transport::MutablePieces&) override {}
  void on_segment_end(PeerId, const transport::SegmentHeader&, transport::ReadToken,
                      bool) override {}
  void on_message(PeerId, ByteView) override {}
  void on_room(PeerId) override {}
  void on_connections(PeerId, std::size_t) override {}

  std::vector<std::pair<Epoch, std::vector<PeerId>>> prepared;
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
