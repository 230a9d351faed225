// Communicators end to end: real sockets, real threads, several peers in one process.
#include "runtime/communicator.hpp"

#include <doctest/doctest.h>

#include <numeric>
#include <thread>

#include "runtime/cluster.hpp"

using namespace pyccl;
using namespace pyccl::runtime;

namespace {

using Vectors = std::vector<std::vector<float>>;

// Peer i contributes 2^i in each element, so that a sum names its contributors.
Vectors contributions(std::size_t peers, std::size_t count) {
  Vectors values;
  for (std::size_t i = 0; i < peers; ++i) {
    values.emplace_back(count, static_cast<float>(1u << i));
  }
  return values;
}

bool all_equal(const std::vector<float>& values, float expected) {
  return std::all_of(values.begin(), values.end(), [&](float each) { return each == expected; });
}

}  // namespace

TEST_CASE("three peers get the same sum, in the order of their ranks") {
  Cluster cluster(3);
  for (const std::size_t count : {std::size_t{1}, std::size_t{1000}, std::size_t{300'001}}) {
    CAPTURE(count);
    Vectors values = contributions(3, count);
    std::vector<WorkPtr> works;
    for (std::size_t i = 0; i < 3; ++i) {
      works.push_back(cluster.peers[i]->call(sum_of(values[i]), patience));
    }
    for (std::size_t i = 0; i < 3; ++i) {
      require_ok(works[i]);
      CHECK(all_equal(values[i], 7.0f));
      CHECK(works[i]->info().world_size == 3);
      CHECK(works[i]->info().members == 3);
      CHECK(works[i]->info().attempts == 1);
      CHECK(works[i]->info().epoch == cluster.peers[0]->view().epoch);
      CHECK_FALSE(works[i]->info().peers_pending);
    }
  }
  for (std::size_t i = 0; i < 3; ++i) {
    const ViewSnapshot view = cluster.peers[i]->view();
    CHECK(view.peers == cluster.peers[0]->view().peers);
    CHECK(view.peers[static_cast<std::size_t>(view.rank)] == cluster.peers[i]->peer());
  }
}

TEST_CASE("a joiner shows as pending on all members after the same operation") {
  Cluster cluster(2);
  auto joiner = open_peer(cluster.coordinator->address());
  bool pending = false;
  // Operations until the hint has come: bounded by the patience of each.
  while (!pending) {
    const auto first = cluster.peers[0]->call(barrier_of(0), patience);
    const auto second = cluster.peers[1]->call(barrier_of(0), patience);
    require_ok(first);
    require_ok(second);
    pending = first->info().peers_pending;
    CHECK(second->info().peers_pending == pending);
  }
  CHECK_FALSE(joiner->admission()->done());
  const auto first = cluster.peers[0]->update(patience);
  const auto second = cluster.peers[1]->update(patience);
  require_ok(first);
  require_ok(second);
  require_ok(joiner->admission());
  CHECK(joiner->view().peers.size() == 3);
  CHECK(joiner->view().rank == 2);
}

TEST_CASE("threads use one communicator at once, each with a tag of its own") {
  Cluster cluster(2);
  constexpr std::uint32_t tags = 4;
  constexpr int rounds = 20;
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (std::uint32_t tag = 0; tag < tags; ++tag) {
    for (std::size_t peer = 0; peer < 2; ++peer) {
      threads.emplace_back([&, tag, peer] {
        for (int round = 0; round < rounds; ++round) {
          const std::size_t count = round % 5 == 0 ? 50'000 : 100;
          std::vector<float> values(count, static_cast<float>(tag * 100 + peer));
          auto request = sum_of(values);
          request.tag = tag;
          // Blocks of equal numbers come back exactly.
          if (round % 2 == 0) request.quantization.format.codec = kernels::Codec::fp4_e3m0;
          const auto work = cluster.peers[peer]->call(std::move(request), patience);
          const auto expected = static_cast<float>(tag * 200 + 1);
          if (work->wait(patience) && work->status().ok() && all_equal(values, expected)) ++right;
        }
      });
    }
  }
  for (auto& thread : threads) thread.join();
  CHECK(right == static_cast<int>(tags) * 2 * rounds);
}

TEST_CASE("one that leaves is not waited for, and has nothing more to say") {
  Cluster cluster(3);
  require_ok(cluster.peers[2]->leave(patience));
  CHECK(cluster.peers[2]->view().ended);
  CHECK(ended(cluster.peers[2]->call(barrier_of(0), patience)).code() == Code::closed);
  CHECK(ended(cluster.peers[2]->update(patience)).code() == Code::closed);
  CHECK(ended(cluster.peers[2]->leave(patience)).code() == Code::closed);
  Vectors values = contributions(2, 100);
  const auto first = cluster.peers[0]->call(sum_of(values[0]), patience);
  const auto second = cluster.peers[1]->call(sum_of(values[1]), patience);
  require_ok(first);
  require_ok(second);
  CHECK(first->info().world_size == 2);
  CHECK(all_equal(values[0], 3.0f));
}

TEST_CASE("the time to be admitted in does not hang over a member that leaves later") {
  const auto coordinator = start_coordinator();
  ConnectOptions options;
  options.coordinator = coordinator->address();
  options.timeout = 2s;
  auto opened = Communicator::open(options);
  REQUIRE(opened.ok());
  const auto peer = opened.take();
  require_ok(peer->admission());
  CHECK_FALSE(Work().wait(options.timeout));  // nobody ends this one: the time passes
  require_ok(peer->leave(patience));
}

TEST_CASE("one that closes in mid operation is a death: the others finish without it") {
  Cluster cluster(3);
  Vectors values = contributions(3, 200'000);
  const auto first = cluster.peers[0]->call(sum_of(values[0]), patience);
  const auto lost = cluster.peers[2]->call(sum_of(values[2]), patience);
  cluster.peers[2]->close();
  CHECK(ended(lost).code() == Code::closed);
  CHECK(all_equal(values[2], 4.0f));  // its memory is its own again, and as it was
  const auto second = cluster.peers[1]->call(sum_of(values[1]), patience);
  require_ok(first);
  require_ok(second);
  CHECK(first->info().world_size == 2);
  CHECK(all_equal(values[0], 3.0f));
  CHECK(all_equal(values[1], 3.0f));
  CHECK(ended(cluster.peers[2]->call(barrier_of(0), patience)).code() == Code::closed);
}

TEST_CASE("a timeout names who is missing, and leaves the input alone") {
  Cluster cluster(2);
  std::vector<float> values(100, 5.0f);
  const Status status = ended(cluster.peers[0]->call(sum_of(values), 50ms));
  CHECK(status.code() == Code::timeout);
  CHECK_MESSAGE(status.reason().find("1") != std::string::npos, status.reason());
  CHECK(all_equal(values, 5.0f));
}

TEST_CASE("different descriptors fail at all members with the same sentence") {
  Cluster cluster(2);
  std::vector<float> small(100, 1.0f), large(200, 2.0f);
  const auto first = cluster.peers[0]->call(sum_of(small), patience);
  const auto second = cluster.peers[1]->call(sum_of(large), patience);
  CHECK(ended(first).code() == Code::mismatch);
  CHECK(ended(second).code() == Code::mismatch);
  CHECK(first->status().reason() == second->status().reason());
  CHECK(all_equal(small, 1.0f));
  CHECK(all_equal(large, 2.0f));
  // The next operation is in order again.
  const auto third = cluster.peers[0]->call(barrier_of(0), patience);
  require_ok(cluster.peers[1]->call(barrier_of(0), patience));
  require_ok(third);
}

TEST_CASE("a cancelled operation ends, and the communicator stays usable") {
  Cluster cluster(2);
  std::vector<float> values(100, 5.0f);
  const auto alone = cluster.peers[0]->call(sum_of(values), patience);
  cluster.peers[0]->cancel(alone);
  CHECK(ended(alone).code() == Code::cancelled);
  CHECK(all_equal(values, 5.0f));
  cluster.peers[0]->cancel(alone);  // once more does nothing
  const auto first = cluster.peers[0]->call(barrier_of(1), patience);
  require_ok(cluster.peers[1]->call(barrier_of(1), patience));
  require_ok(first);
}

TEST_CASE("a cancelled update() ends at once, counts no more, and can be called again") {
  Cluster cluster(2);
  const auto given_up = cluster.peers[0]->update(patience);
  cluster.peers[0]->cancel(given_up);
  const auto again = cluster.peers[0]->update(patience);
  CHECK(ended(given_up).code() == Code::cancelled);
  cluster.peers[0]->cancel(given_up);  // once more does nothing
  require_ok(cluster.peers[1]->update(patience));
  require_ok(again);
}

TEST_CASE("works that nobody holds end too, and callbacks come before close has returned") {
  std::atomic<int> calls = 0;
  {
    Cluster cluster(2);
    std::vector<float> values(100, 5.0f);
    cluster.peers[0]->call(sum_of(values), patience)->on_done([&] { ++calls; });
    cluster.peers[0]->close();
    CHECK(calls == 1);
    CHECK(all_equal(values, 5.0f));
  }
  CHECK(calls == 1);
}

TEST_CASE("a communicator that is dropped inside a callback of its own ends by itself") {
  auto coordinator = start_coordinator();
  auto peer = open_peer(coordinator->address());
  require_ok(peer->admission());
  Communicator* raw = peer.get();
  const auto ended_inside = std::make_shared<Work>();
  const auto work = raw->call(barrier_of(7), patience);
  work->on_done([&, ended_inside] {
    peer.reset();
    ended_inside->finish({}, {});
  });
  REQUIRE(ended_inside->wait(patience));
  CHECK(peer == nullptr);
}
