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

// No channels: what comes in is handed over by the test.
class Host final : public ExecutorHost {
 public:
  transport::Channel* channel(PeerId) override { return nullptr; }
  void operation_whole(OpId) override { ++whole; }
  void operation_refused(OpKey, Status why) override { refused = std::move(why); }

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
  AllReduceRequest request;
  auto* bytes = reinterpret_cast<std::byte*>(values.data());
  request.arrays.push_back({bytes, bytes, kernels::DataType::f32, values.size()});
  request.weight = weight;
  return std::make_unique<Operation>(1, protocol::Collective::all_reduce, request, 1 << 20, Time{},
                                     executor.pools());
}

// A segment of an operation that this peer has not called; true if its payload is kept.
bool early(Executor& executor, PeerId from, OpId op, std::uint32_t length,
           transport::ReadToken token, bool completes = true) {
  transport::SegmentHeader header;
  header.op = op;
  header.length = length;
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
  CHECK(executor.load().stash_bytes_most == 2 * eager_bytes_max);
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
  CHECK(executor.load().stash_bytes == 1000);
}

TEST_CASE("weights that are all 0 are refused, alone and in company") {
  std::vector<float> values(10, 1.0f);
  for (const bool alone : {true, false}) {
    Host host;
    Executor executor(host, self, 1 << 20);
    const std::vector<PeerId> members = alone ? std::vector{self} : std::vector{self, other};
    executor.install(view_of({1, 1}, members));
    executor.add(key, operation_on(values, 0.0, executor));
    executor.start({{1, 1}, key}, 1, members);
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
  executor.start(op, 1, {self, other});
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
  executor.start({{1, 1}, {key.group, key.tag, 1}}, 1, {self, other});
  CHECK(!host.refused);
  CHECK(executor.find({key.group, key.tag, 1})->running());
}

TEST_CASE("a retry that needs more memory than there is leaves the arrays as they were") {
  Host host;
  Executor executor(host, self, 1 << 20);
  std::vector<float> values(1 << 18, 1.0f);
  executor.install(view_of({1, 1}, {self}));
  executor.add(key, operation_on(values, 1.0, executor));
  executor.start({{1, 1}, key}, 1, {self});  // takes nothing, and is whole
  CHECK(host.whole == 1);
  executor.pools().memory.limit(0);
  executor.install(view_of({1, 2}, {self, other}));
  executor.start({{1, 2}, key}, 2, {self, other});
  REQUIRE(host.refused);
  executor.finish(key, false);
  CHECK(values == std::vector<float>(1 << 18, 1.0f));
}

TEST_CASE("data of a member without weight counts for nothing") {
  Host host;
  Executor executor(host, self, 1 << 20);
  executor.install(view_of({1, 1}, {self, other}));
  std::vector<std::int32_t> values(10, 1);
  AllReduceRequest request;
  auto* bytes = reinterpret_cast<std::byte*>(values.data());
  request.arrays.push_back({bytes, bytes, kernels::DataType::i32, values.size()});
  executor.add(key, std::make_unique<Operation>(1, protocol::Collective::all_reduce, request,
                                                1 << 20, Time{}, executor.pools()));
  executor.start({{1, 1}, key}, 1, {self, other});
  CHECK(early(executor, other, {{1, 1}, key}, 40, 1));
  executor.peer_posted({{1, 1}, key}, other, 0.0);
  CHECK(host.whole == 1);
  executor.finish(key, true);
  CHECK(values == std::vector<std::int32_t>(10, 1));
}
