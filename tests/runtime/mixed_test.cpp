// Many threads of several peers, all collectives at once: every result is right, and under the
// thread sanitizer nothing races. Small and large operations share the links fairly.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "base/prng.hpp"
#include "cluster.hpp"

using namespace pyccl;
using namespace pyccl::runtime;
using collectives::Kind;

namespace {

constexpr Kind kinds[] = {Kind::all_reduce,     Kind::all_gather, Kind::all_to_all,
                          Kind::reduce_scatter, Kind::broadcast,  Kind::reduce,
                          Kind::gather,         Kind::scatter,    Kind::barrier};

// What all peers do in one round of a tag.
struct Round {
  Kind kind = Kind::all_reduce;
  std::uint64_t share = 0;  // elements of a rank
  Rank root = 0;
};

Round round_of(std::uint32_t tag, int number, Rank world) {
  Prng prng(tag * 1000 + static_cast<std::uint64_t>(number));
  Round round;
  round.kind = kinds[prng.below(std::size(kinds))];
  round.share = prng.chance(1, 8) ? prng.below(40'000) : prng.below(300);
  round.root = static_cast<Rank>(prng.below(static_cast<std::uint64_t>(world)));
  return round;
}

// What `rank` puts in at `place`; sums of eight don't overflow.
std::int32_t value(std::uint32_t tag, int number, Rank rank, std::uint64_t place) {
  const std::uint64_t mixed = (place + 1) * 2654435761u +
                              static_cast<std::uint64_t>(rank) * 40503u + tag * 977u +
                              static_cast<std::uint64_t>(number) * 31u;
  return static_cast<std::int32_t>(mixed % 100'000'000);
}

class Player {
 public:
  Player(Communicator& peer, Rank self, Rank world, std::uint32_t tag)
      : peer_(peer), self_(self), world_(world), tag_(tag) {}

  bool play(int number) {
    const Round round = round_of(tag_, number, world_);
    const auto ranks = static_cast<std::uint64_t>(world_);
    const bool root = round.root == self_;
    std::uint64_t input_count = round.share;
    std::uint64_t output_count = round.share;
    switch (round.kind) {
      case Kind::all_gather: output_count *= ranks; break;
      case Kind::gather: output_count = root ? ranks * round.share : 0; break;
      case Kind::reduce_scatter: input_count *= ranks; break;
      case Kind::scatter: input_count = root ? ranks * round.share : 0; break;
      case Kind::all_to_all: input_count = output_count = ranks * round.share; break;
      case Kind::broadcast: input_count = root ? round.share : 0; break;
      case Kind::reduce: output_count = root ? round.share : 0; break;
      case Kind::barrier: input_count = output_count = 0; break;
      default: break;
    }
    input_.resize(input_count);
    for (std::uint64_t i = 0; i < input_count; ++i) input_[i] = value(tag_, number, self_, i);
    output_.assign(output_count, -1);
    const Status status = call(round);
    return status.ok() && right(round, number);
  }

 private:
  Status call(const Round& round) {
    engine::Request request;
    request.kind = round.kind;
    request.tag = tag_;
    const bool rooted = round.kind == Kind::broadcast || round.kind == Kind::reduce ||
                        round.kind == Kind::gather || round.kind == Kind::scatter;
    if (rooted) request.root = round.root;
    const bool cut = round.kind == Kind::reduce_scatter || round.kind == Kind::scatter ||
                     round.kind == Kind::all_to_all;
    if (cut) request.on_loss = engine::OnLoss::raise;
    if (round.kind != Kind::barrier) {
      request.arrays.push_back({reinterpret_cast<const std::byte*>(input_.data()),
                                reinterpret_cast<std::byte*>(output_.data()),
                                kernels::DataType::i32, input_.size(), output_.size()});
    }
    const auto work = peer_.call(std::move(request), patience, Then::waits);
    if (!work->wait(patience)) return Status(Code::timeout, "a call does not end");
    return work->status();
  }

  std::int32_t expected(const Round& round, int number, std::uint64_t place) const {
    const auto sum_at = [&](std::uint64_t at) {
      std::int32_t sum = 0;
      for (Rank rank = 0; rank < world_; ++rank) sum += value(tag_, number, rank, at);
      return sum;
    };
    const std::uint64_t own = static_cast<std::uint64_t>(self_) * round.share + place;
    const auto from = static_cast<Rank>(place / std::max<std::uint64_t>(round.share, 1));
    const std::uint64_t within = place % std::max<std::uint64_t>(round.share, 1);
    switch (round.kind) {
      case Kind::all_reduce:
      case Kind::reduce: return sum_at(place);
      case Kind::reduce_scatter: return sum_at(own);
      case Kind::broadcast: return value(tag_, number, round.root, place);
      case Kind::scatter: return value(tag_, number, round.root, own);
      case Kind::all_to_all:
        return value(tag_, number, from, static_cast<std::uint64_t>(self_) * round.share + within);
      default: return value(tag_, number, from, within);
    }
  }

  bool right(const Round& round, int number) const {
    for (std::uint64_t i = 0; i < output_.size(); ++i) {
      if (output_[i] != expected(round, number, i)) return false;
    }
    return true;
  }

  Communicator& peer_;
  Rank self_;
  Rank world_;
  std::uint32_t tag_;
  std::vector<std::int32_t> input_;
  std::vector<std::int32_t> output_;
};

}  // namespace

TEST_CASE("8 threads at each of 4 peers, 200 operations of all kinds on a tag each") {
  constexpr std::size_t world = 4;
  constexpr std::uint32_t tags = 8;
  constexpr int rounds = 200;
  Cluster cluster(world);
  std::atomic<int> right = 0;
  std::vector<std::thread> threads;
  for (std::uint32_t tag = 0; tag < tags; ++tag) {
    for (const auto& peer : cluster.peers) {
      threads.emplace_back([&right, tag, &peer = *peer] {
        const auto members = static_cast<Rank>(peer.view().peers.size());
        Player player(peer, peer.view().rank, members, tag);
        for (int round = 0; round < rounds; ++round) {
          if (player.play(round)) ++right;
        }
      });
    }
  }
  for (auto& thread : threads) thread.join();
  CHECK(right == static_cast<int>(tags * world) * rounds);
}

namespace {

// One thread's calls of one size on one tag, until somebody wants to stop; milliseconds of each.
std::vector<double> reduce_again_and_again(Communicator& peer, std::uint32_t tag, std::size_t count,
                                           const std::function<bool(std::size_t)>& stop) {
  std::vector<double> took;
  std::vector<float> values(count);
  do {
    // All see the same sum, and so leave behind the same call.
    std::ranges::fill(values, 0.0f);
    values[0] = stop(took.size()) ? 1.0f : 0.0f;
    const auto begin = std::chrono::steady_clock::now();
    auto request = sum_of(values);
    request.tag = tag;
    require_ok(peer.call(std::move(request), patience, Then::waits));
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    took.push_back(time.count());
  } while (values[0] == 0.0f);
  return took;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

}  // namespace

TEST_CASE("a small operation does not wait for the large ones beside it") {
  constexpr std::size_t rounds = 6;
  Cluster cluster(2);
  std::atomic<bool> over = false;
  std::vector<double> large, small;
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < 2; ++i) {
    Communicator& peer = *cluster.peers[i];
    threads.emplace_back([&peer, &large, &over, i] {
      auto took = reduce_again_and_again(peer, 1, 16 << 20,
                                         [](std::size_t done) { return done + 1 >= rounds; });
      over = true;
      if (i == 0) large = std::move(took);
    });
    threads.emplace_back([&peer, &small, &over, i] {
      auto took =
          reduce_again_and_again(peer, 2, 1024, [&over](std::size_t) { return over.load(); });
      if (i == 0) small = std::move(took);
    });
  }
  for (auto& thread : threads) thread.join();
  INFO(small.size(), " of 4 KiB, median ", median(small), " ms; of 64 MiB ", median(large), " ms");
  // Behind a large one it would take as long as that.
  CHECK(small.size() > 4 * rounds);
  CHECK(median(small) < median(large) / 4);
}
