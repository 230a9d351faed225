// The executor on its own: what early data it keeps and for how long, and operations that nobody
// contributes to.
#include "engine/executor.hpp"

#include <doctest/doctest.h>

#include <memory>
#include <optional>
#include <vector>

using namespace pyccl;
using namespace pyccl::engine;

namespace {

constexpr PeerId self{1};
constexpr PeerId other{2};
constexpr PeerId third{3};

// Counts what leaves, and what it is told to let come again.
class Lane final : public transport::Channel {
 public:
  void send_message(ByteView) override {}
  void send_segment(const transport::SegmentHeader&, const transport::Pieces&) override {
    ++segments;
  }
  bool has_room() const override { return true; }
  void forget(OpId) override {}
  void redirect(transport::ReadToken) override {}
  void refuse(transport::ReadToken token) override { refused = token; }
  void adopt(std::unique_ptr<transport::Connection>) override {}
  std::size_t connections() const override { return 1; }
  bool same_host() const override { return near; }
  void flush() override {}
  void tick(Time) override {}
  std::optional<Time> next_deadline() const override { return {}; }
  std::uint64_t bytes_sent() const override { return 0; }
  std::uint64_t bytes_received() const override { return 0; }
  std::optional<transport::WayMeasurement> measurement() const override { return {}; }
  void close(Status) override {}

  bool near = false;
  std::size_t segments = 0;
  transport::ReadToken refused = 0;
};

// What comes in is handed over by the test.
class Host final : public ExecutorHost {
 public:
  transport::Channel* channel(PeerId) override { return &lane; }
  void operation_whole(OpId) override { ++whole; }
  void operation_refused(OpKey, Status why) override { refused = std::move(why); }

  Lane lane;
  int whole = 0;
  std::optional<Status> refused;
};

protocol::View view_of(Epoch epoch, const std::vector<PeerId>& members) {
  protocol::View view;
  view.epoch = epoch;
  for (const PeerId peer : members) view.members.push_back({peer, "default", {}, {}});
  return view;
}

std::unique_ptr<Operation> operation_on(std::vector<float>& values, double weight,
                                        Executor& executor) {
  Request request;
  auto* bytes = reinterpret_cast<std::byte*>(values.data());
  request.arrays.push_back({bytes, bytes, kernels::DataType::f32, values.size(), values.size()});
  request.weight = weight;
  return std::make_unique<Operation>(1, request, PeerId{}, false, 1 << 18, Time{},
                                     executor.pools());
}

// A segment of an operation that this peer has not called, each with another token at another
// place; true if its payload is kept.
bool early(Executor& executor, PeerId from, OpId op, std::uint32_t length,
           transport::ReadToken token, bool completes = true, std::uint64_t offset = ~0ull) {
  transport::SegmentHeader header;
  header.op = op;
  header.length = length;
  header.offset = offset == ~0ull ? token * length : offset;
  transport::MutablePieces target;
  executor.segment(from, header, token, target);
  if (target.empty()) return false;
  if (completes) executor.segment_end(from, header, token, true);
  return true;
}

const OpKey key{group_id("default"), 0, 0};

}  // namespace

TEST_CASE("early data is kept within the budget, and goes with its view") {
  Host host;
  Executor executor(host, self, 1 << 20);
  executor.install(view_of({1, 1}, {self, other, third}));
  transport::ReadToken token = 0;
  while (early(executor, other, {{1, 1}, key}, 1 << 18, ++token)) {
    REQUIRE(token < 100);
  }
  CHECK(token == 9);
  CHECK(host.lane.refused == 9);  // it comes again
  CHECK(executor.load().stash_bytes_most <= 2 * eager_bytes_max);
  // Another peer has a budget of its own.
  CHECK(early(executor, third, {{1, 1}, key}, 1 << 18, 1));
  executor.install(view_of({1, 2}, {self, other, third}));
  CHECK(executor.load().stash_bytes == 0);
  CHECK(early(executor, other, {{1, 2}, key}, 1 << 18, ++token));
}

TEST_CASE("early data of a peer goes with it, also what was half read") {
  Host host;
  Executor executor(host, self, 1 << 20);
  executor.install(view_of({1, 1}, {self, other, third}));
  CHECK(early(executor, other, {{1, 2}, key}, 1000, 1, false));
  CHECK(early(executor, other, {{1, 2}, key}, 1000, 2));
  CHECK(early(executor, third, {{1, 2}, key}, 1000, 1));
  executor.install(view_of({1, 2}, {self, third}));
  CHECK(executor.load().stash_bytes == 1000 + eager_segment_bytes);
}

TEST_CASE("many small pieces of early data are bounded like few large ones") {
  Host host;
  Executor executor(host, self, 1 << 20);
  executor.install(view_of({1, 1}, {self, other}));
  transport::ReadToken token = 0;
  while (early(executor, other, {{1, 1}, key}, 1, ++token)) REQUIRE(token < 10'000);
  CHECK(host.lane.refused == token);
  transport::SegmentHeader empty;
  empty.op = {{1, 1}, key};
  empty.empty = true;
  empty.length = 1;
  empty.step = 1;
  transport::MutablePieces target;
  host.lane.refused = 0;
  executor.segment(other, empty, ++token, target);
  CHECK(host.lane.refused == token);
  const std::uint64_t kept = executor.load().stash_bytes;
  executor.install(view_of({1, 2}, {self, other}));
  CHECK(!early(executor, other, {{1, 2}, key}, 0, ++token));
  CHECK(executor.load().stash_bytes == 0);
  CHECK(kept <= 2 * eager_bytes_max);
}

TEST_CASE("a second copy of early data costs nothing") {
  Host host;
  Executor executor(host, self, 1 << 20);
  executor.install(view_of({1, 1}, {self, other}));
  const OpId op{{1, 1}, key};
  // Two that are on their way at once, over two connections, and one behind them.
  transport::MutablePieces first, second;
  transport::SegmentHeader header;
  header.op = op;
  header.length = 1000;
  executor.segment(other, header, 1, first);
  executor.segment(other, header, 2, second);
  REQUIRE((!first.empty() && !second.empty()));
  executor.segment_end(other, header, 2, true);
  executor.segment_end(other, header, 1, true);
  CHECK(executor.load().stash_bytes == 1000 + eager_segment_bytes);
  CHECK(!early(executor, other, op, 1000, 3, true, 0));
  CHECK(host.lane.refused == 0);
  CHECK(executor.load().stash_bytes == 1000 + eager_segment_bytes);
}

TEST_CASE("what was sent ahead stays counted until the next view, also of a cancelled operation") {
  Host host;
  Executor executor(host, self, 1 << 18);
  std::vector<float> values(4 << 20, 1.0f);
  for (std::uint32_t view = 1; view <= 2; ++view) {
    executor.install(view_of({1, view}, {self, other}));
    for (std::uint32_t seq = 2 * view; seq < 2 * view + 2; ++seq) {
      const OpId op{{1, view}, {key.group, key.tag, seq}};
      executor.add(op.key, operation_on(values, 1.0, executor));
      executor.start(op, 1, {self, other}, {});
      executor.pump(other);
      executor.finish(op.key, false);
    }
    CHECK(host.lane.segments * ((1 << 18) + eager_segment_bytes) <= view * eager_bytes_max);
    CHECK(host.lane.segments > view - 1);
  }
}

// What comes before the operation is posted is copied twice there, and whoever is on the same host
// hears soon enough that it is.
TEST_CASE("within a host only small operations are sent ahead") {
  for (const bool near : {false, true}) {
    Host host;
    host.lane.near = near;
    Executor executor(host, self, 1 << 18);
    executor.install(view_of({1, 1}, {self, other}));
    std::vector<float> large(4 << 20, 1.0f);
    std::vector<float> small(1 << 10, 1.0f);
    const OpId large_id{{1, 1}, {key.group, 1, 0}};
    const OpId small_id{{1, 1}, {key.group, 2, 0}};
    const auto sent_of = [&](OpId op, std::vector<float>& values) {
      const std::size_t before = host.lane.segments;
      executor.add(op.key, operation_on(values, 1.0, executor));
      executor.start(op, 1, {self, other}, {});
      executor.pump(other);
      return host.lane.segments - before;
    };
    CHECK(sent_of(small_id, small) > 0);
    CHECK((sent_of(large_id, large) > 0) == !near);
    const std::size_t ahead = host.lane.segments;
    executor.peer_posted(large_id, other, 1.0);
    executor.pump(other);
    CHECK(host.lane.segments > ahead);
  }
}

TEST_CASE("weights that are all 0 are refused, alone and in company") {
  std::vector<float> values(10, 1.0f);
  for (const bool alone : {true, false}) {
    Host host;
    Executor executor(host, self, 1 << 20);
    const std::vector<PeerId> members = alone ? std::vector{self} : std::vector{self, other};
    executor.install(view_of({1, 1}, members));
    executor.add(key, operation_on(values, 0.0, executor));
    executor.start({{1, 1}, key}, 1, members, {});
    if (!alone) executor.peer_posted({{1, 1}, key}, other, 0.0);
    REQUIRE(host.refused);
    CHECK(host.refused->code() == Code::invalid_argument);
    CHECK(host.whole == 0);
  }
}

TEST_CASE("an attempt without memory is refused before anything of it runs") {
  Host host;
  Executor executor(host, self, 1 << 20);
  executor.install(view_of({1, 1}, {self, other}));
  std::vector<float> values(1 << 20, 1.0f);
  executor.pools().memory.limit(1 << 20);
  const OpId op{{1, 1}, key};
  executor.add(key, operation_on(values, 1.0, executor));
  executor.start(op, 1, {self, other}, {});
  REQUIRE(host.refused);
  CHECK(host.refused->code() == Code::limit_exceeded);
  CHECK(host.refused->peer() == self);
  CHECK(host.refused->reason().find("4194304 bytes") != std::string::npos);
  CHECK(!executor.find(key)->running());
  // What the others send meanwhile is for nobody.
  CHECK(!early(executor, other, op, 1000, 1));
  CHECK(executor.load().stash_bytes == 0);
  executor.finish(key, false);
  CHECK(values == std::vector<float>(1 << 20, 1.0f));

  executor.add({key.group, key.tag, 1}, operation_on(values, 1.0, executor));
  executor.pools().memory.limit(1 << 23);
  host.refused.reset();
  executor.start({{1, 1}, {key.group, key.tag, 1}}, 1, {self, other}, {});
  CHECK(!host.refused);
  CHECK(executor.find({key.group, key.tag, 1})->running());
}

TEST_CASE("a retry that needs more memory than there is leaves the arrays as they were") {
  Host host;
  Executor executor(host, self, 1 << 20);
  std::vector<float> values(1 << 18, 1.0f);
  executor.install(view_of({1, 1}, {self}));
  executor.add(key, operation_on(values, 1.0, executor));
  executor.start({{1, 1}, key}, 1, {self}, {});  // takes nothing, and is whole
  CHECK(host.whole == 1);
  executor.pools().memory.limit(0);
  executor.install(view_of({1, 2}, {self, other}));
  executor.start({{1, 2}, key}, 2, {self, other}, {});
  REQUIRE(host.refused);
  executor.finish(key, false);
  CHECK(values == std::vector<float>(1 << 18, 1.0f));
}

TEST_CASE("data of a member without weight counts for nothing") {
  Host host;
  Executor executor(host, self, 1 << 20);
  executor.install(view_of({1, 1}, {self, other}));
  std::vector<std::int32_t> values(10, 1);
  Request request;
  auto* bytes = reinterpret_cast<std::byte*>(values.data());
  request.arrays.push_back({bytes, bytes, kernels::DataType::i32, values.size(), values.size()});
  executor.add(key, std::make_unique<Operation>(1, request, PeerId{}, false, 1 << 20, Time{},
                                                executor.pools()));
  executor.start({{1, 1}, key}, 1, {self, other}, {});
  CHECK(early(executor, other, {{1, 1}, key}, 40, 1, true, 0));
  executor.peer_posted({{1, 1}, key}, other, 0.0);
  CHECK(host.whole == 1);
  executor.finish(key, true);
  CHECK(values == std::vector<std::int32_t>(10, 1));
}

TEST_CASE(
    "what can't be decompressed is refused, also where it came early, and its slots go back") {
  const OpId op{{1, 1}, key};
  for (const bool ahead : {true, false}) {
    CAPTURE(ahead);
    Host host;
    Executor executor(host, self, 1 << 18);
    executor.install(view_of({1, 1}, {self, other}));
    std::vector<float> values(1000, 1.0f);
    auto* bytes = reinterpret_cast<std::byte*>(values.data());
    Request request;
    request.arrays.push_back({bytes, bytes, kernels::DataType::f32, 1000, 1000});
    request.quantization.format.codec = kernels::Codec::int8;
    if (ahead) CHECK(early(executor, other, op, 7, 1, true, 0));
    executor.add(key, std::make_unique<Operation>(1, request, PeerId{}, false, 1 << 18, Time{},
                                                  executor.pools()));
    executor.start(op, 1, {self, other}, {});
    if (!ahead) CHECK(early(executor, other, op, 7, 1, true, 0));
    REQUIRE(host.refused);
    CHECK(host.refused->code() == Code::protocol_violation);
    CHECK(host.refused->peer() == other);
    CHECK(executor.load().slots == 0);
    executor.finish(key, false);
    CHECK(values == std::vector<float>(1000, 1.0f));
  }
}
