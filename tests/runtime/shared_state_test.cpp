// Syncs by threads of one process: what comes of them, that they take turns with other operations,
// and what happens to who gives up. The thread sanitizer runs this, too.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "cluster.hpp"
#include "runtime/shared_state.hpp"

namespace pyccl::runtime {
namespace {

// A state of two tensors, one of which has several blocks.
struct Holder {
  explicit Holder(std::uint64_t revision, float value)
      : large(3 * engine::state_block_bytes / sizeof(float) / 2, value), small(3, value) {
    state = std::make_unique<SharedState>(describe());
    REQUIRE(state->set_revision(revision).ok());
  }

  engine::SharedState describe() {
    const auto tensor = [](const char* name, std::vector<float>& values) {
      return engine::Tensor{name,
                            "f32",
                            {values.size()},
                            reinterpret_cast<std::byte*>(values.data()),
                            values.size() * sizeof(float)};
    };
    auto made = engine::SharedState::make({tensor("large", large), tensor("small", small)}, false);
    REQUIRE(made.ok());
    return made.take();
  }

  bool is(float value) const {
    const auto same = [value](float each) { return each == value; };
    return std::ranges::all_of(large, same) && std::ranges::all_of(small, same);
  }

  std::vector<float> large;
  std::vector<float> small;
  std::unique_ptr<SharedState> state;
};

// Runs `body` with each number on a thread of its own.
void each_of(std::size_t count, const std::function<void(std::size_t)>& body) {
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < count; ++i) threads.emplace_back([&, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

Status sync(Communicator& peer, SharedState& state, engine::SyncInfo& info,
            const SharedState::Watch& watch = {}) {
  return state.sync(peer, {}, patience, watch, info);
}

}  // namespace

TEST_CASE("sync: all get the newest state, while other operations go on") {
  Cluster cluster(3);
  std::vector<std::unique_ptr<Holder>> holders;
  for (std::uint64_t i = 0; i < 3; ++i) {
    holders.push_back(std::make_unique<Holder>(i == 1 ? 7 : i, static_cast<float>(i)));
  }
  std::vector<Status> outcomes(3);
  std::vector<engine::SyncInfo> infos(3);
  each_of(3, [&](std::size_t i) {
    for (int round = 0; round < 3 && outcomes[i].ok(); ++round) {
      std::vector<float> values(1000, 1.0f);
      const WorkPtr sum = cluster.peers[i]->call(sum_of(values), patience);
      if (!sum->wait(patience) || !sum->status().ok()) outcomes[i] = sum->status();
      if (outcomes[i].ok()) outcomes[i] = sync(*cluster.peers[i], *holders[i]->state, infos[i]);
    }
  });
  for (std::size_t i = 0; i < 3; ++i) {
    REQUIRE_MESSAGE(outcomes[i].ok(), outcomes[i].reason());
    CHECK(holders[i]->is(1.0f));
    CHECK(holders[i]->state->revision() == 7);
    CHECK(holders[i]->state->digest().value() == holders[0]->state->digest().value());
    CHECK(infos[i].blocks_fetched == 0);  // in the last round
    CHECK(holders[i]->state->last_sync().behind.empty());
  }
}

TEST_CASE("sync: who gives up ends it for all, and the next one goes well") {
  Cluster cluster(2);
  Holder newest(2, 2.0f);
  Holder old(1, 1.0f);
  Status gave_up;
  Status left_alone;
  each_of(2, [&](std::size_t i) {
    engine::SyncInfo info;
    if (i == 0) {
      left_alone = sync(*cluster.peers[0], *newest.state, info);
    } else {
      gave_up = sync(*cluster.peers[1], *old.state, info,
                     [](std::uint64_t, std::uint64_t) { return false; });
    }
  });
  CHECK(gave_up.code() == Code::cancelled);
  CHECK(left_alone.code() == Code::cancelled);
  CHECK((old.is(1.0f) || old.is(2.0f)));
  each_of(2, [&](std::size_t i) {
    engine::SyncInfo info;
    const Status status = sync(*cluster.peers[i], i == 0 ? *newest.state : *old.state, info);
    CHECK_MESSAGE(status.ok(), status.reason());
  });
  CHECK(old.is(2.0f));
  CHECK(old.state->revision() == 2);
}

TEST_CASE("sync: one at a time on a communicator") {
  Cluster cluster(1);
  Holder holder(1, 1.0f);
  Holder other(1, 1.0f);
  Status inner;
  engine::SyncInfo info;
  bool tried = false;
  const auto watch = [&](std::uint64_t, std::uint64_t) {
    if (!std::exchange(tried, true)) {
      engine::SyncInfo unused;
      inner = sync(*cluster.peers[0], *other.state, unused);
    }
    return true;
  };
  CHECK(sync(*cluster.peers[0], *holder.state, info, watch).ok());
  CHECK(tried);
  CHECK(inner.code() == Code::invalid_argument);
  CHECK(sync(*cluster.peers[0], *other.state, info).ok());
}

TEST_CASE("sync: a member that dies is left behind") {
  Cluster cluster(3);
  std::vector<std::unique_ptr<Holder>> holders;
  for (std::uint64_t i = 0; i < 3; ++i) {
    holders.push_back(std::make_unique<Holder>(i, static_cast<float>(i)));
  }
  // Rank 0 has nothing that the others need; it is gone before it takes part.
  each_of(3, [&](std::size_t i) {
    if (i == 0) return cluster.peers[0]->close();
    engine::SyncInfo info;
    const Status status = sync(*cluster.peers[i], *holders[i]->state, info);
    CHECK_MESSAGE(status.ok(), status.reason());
    CHECK(info.peers.size() == 2);
    CHECK(holders[i]->is(2.0f));
  });
}

}  // namespace pyccl::runtime
