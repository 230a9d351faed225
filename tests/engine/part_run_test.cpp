// Runs the parts of one operation at all ranks against each other, without channels: segments are
// handed over in random order, some of them twice, and the results are compared with a plain sum.
#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "base/prng.hpp"
#include "engine/operation.hpp"

using namespace pyccl;
using namespace pyccl::engine;

namespace {

struct Case {
  Rank world = 2;
  std::vector<std::uint64_t> counts;  // of the arrays
  bool in_place = true;
  pyccl_algorithm algorithm = PYCCL_ALGORITHM_AUTO;
  kernels::ReduceOp op = kernels::ReduceOp::sum;
  std::vector<double> weights;  // empty: all 1
  std::uint32_t segment_bytes = 64;
};

struct Envelope {
  std::size_t from, to;
  transport::SegmentHeader header;
  Bytes payload;
};

class Ranks {
 public:
  explicit Ranks(const Case& test, std::uint64_t seed) : test_(test), prng_(seed) {
    for (Rank rank = 0; rank < test.world; ++rank) {
      peers_.push_back({static_cast<std::uint64_t>(100 + rank)});
      pools_.push_back(std::make_unique<Pools>(test.segment_bytes));
      inputs_.emplace_back();
      outputs_.emplace_back();
      for (std::uint64_t count : test.counts) {
        inputs_.back().emplace_back(count);
        for (float& value : inputs_.back().back()) value = random_value();
        outputs_.back().emplace_back(test.in_place ? 0 : count, -1.0f);
      }
      originals_.push_back(inputs_.back());
      operations_.push_back(make(static_cast<std::size_t>(rank)));
    }
  }

  void begin(std::uint32_t attempt) {
    wire_.clear();
    posts_.clear();
    const OpId id{{1, attempt}, {}};
    for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
      const auto reach = collectives::Reach::same_host;
      REQUIRE(operations_[rank]->begin(id, attempt, peers_[rank], peers_, reach).ok());
    }
    // Some learn late that the others have posted.
    for (std::size_t to = 0; to < peers_.size(); ++to) {
      for (std::size_t from = 0; from < peers_.size(); ++from) posts_.emplace_back(from, to);
    }
  }

  // Hands over what can be handed over; stops after `most` events. True: everything has arrived.
  bool run(std::size_t most) {
    for (std::size_t event = 0; event < most; ++event) {
      if (!posts_.empty() && prng_.chance(1, 3)) {
        const std::size_t at = prng_.below(posts_.size());
        const auto [from, to] = posts_[at];
        operations_[to]->posted(peers_[from], weight(from));
        posts_.erase(posts_.begin() + static_cast<std::ptrdiff_t>(at));
      } else if (!wire_.empty() && prng_.chance(1, 2)) {
        deliver();
      } else if (!send_one() && wire_.empty() && posts_.empty()) {
        return true;
      }
    }
    return false;
  }

  std::vector<std::unique_ptr<Operation>>& operations() { return operations_; }
  double weight(std::size_t rank) const {
    return test_.weights.empty() ? 1.0 : test_.weights[rank];
  }
  const std::vector<float>& result(std::size_t rank, std::size_t array) const {
    return (test_.in_place ? inputs_ : outputs_)[rank][array];
  }
  const std::vector<float>& input(std::size_t rank, std::size_t array) const {
    return inputs_[rank][array];
  }
  const std::vector<float>& original(std::size_t rank, std::size_t array) const {
    return originals_[rank][array];
  }

 private:
  // Small integers: their sums are exact in any order.
  float random_value() { return static_cast<float>(prng_.below(64)) - 32.0f; }

  std::unique_ptr<Operation> make(std::size_t rank) {
    AllReduceRequest request;
    request.op = test_.op;
    request.weight = weight(rank);
    request.algorithm = test_.algorithm;
    for (std::size_t i = 0; i < test_.counts.size(); ++i) {
      auto* input = reinterpret_cast<std::byte*>(inputs_[rank][i].data());
      auto* output = reinterpret_cast<std::byte*>(outputs_[rank][i].data());
      request.arrays.push_back(
          {input, test_.in_place ? input : output, kernels::DataType::f32, test_.counts[i]});
    }
    REQUIRE(check(request).ok());
    return std::make_unique<Operation>(1, protocol::Collective::all_reduce, request,
                                       test_.segment_bytes, Time{}, *pools_[rank]);
  }

  bool send_one() {
    const std::size_t first = prng_.below(peers_.size());
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      const std::size_t from = (first + i) % peers_.size();
      for (std::size_t to = 0; to < peers_.size(); ++to) {
        Envelope envelope{from, to, {}, {}};
        transport::Pieces pieces;
        if (!operations_[from]->next_segment(peers_[to], envelope.header, pieces)) continue;
        for (const ByteView piece : pieces.view()) {
          envelope.payload.insert(envelope.payload.end(), piece.begin(), piece.end());
        }
        if (prng_.chance(1, 8)) wire_.push_back(envelope);
        wire_.push_back(std::move(envelope));
        return true;
      }
    }
    return false;
  }

  void deliver() {
    const std::size_t at = prng_.below(wire_.size());
    const Envelope envelope = std::move(wire_[at]);
    wire_.erase(wire_.begin() + static_cast<std::ptrdiff_t>(at));
    Operation& operation = *operations_[envelope.to];
    transport::MutablePieces target;
    const transport::ReadToken token = ++token_;
    operation.segment(peers_[envelope.from], envelope.header, token, target);
    if (target.empty()) return;
    const bool complete = !prng_.chance(1, 10);
    std::size_t done = 0;
    for (const MutableByteView piece : target.view()) {
      const std::size_t size = complete ? piece.size() : piece.size() / 2;
      std::memcpy(piece.data(), envelope.payload.data() + done, size);
      done += piece.size();
    }
    operation.segment_end(peers_[envelope.from], envelope.header, token, complete);
    if (!complete) wire_.push_back(envelope);  // its connection died; it comes again
  }

  Case test_;
  Prng prng_;
  std::vector<PeerId> peers_;
  std::vector<std::unique_ptr<Pools>> pools_;
  std::vector<std::vector<std::vector<float>>> inputs_, outputs_, originals_;
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<Envelope> wire_;
  std::vector<std::pair<std::size_t, std::size_t>> posts_;
  transport::ReadToken token_ = 0;
};

void expect_results(const Case& test, Ranks& ranks) {
  double total_weight = 0.0;
  for (Rank rank = 0; rank < test.world; ++rank) total_weight += ranks.weight(rank);
  for (Rank rank = 0; rank < test.world; ++rank) {
    auto& operation = ranks.operations()[static_cast<std::size_t>(rank)];
    REQUIRE(operation->became_whole());
    CHECK_FALSE(operation->became_whole());
    operation->commit();
    for (std::size_t array = 0; array < test.counts.size(); ++array) {
      const auto& result = ranks.result(rank, array);
      REQUIRE(result.size() == test.counts[array]);
      for (std::size_t i = 0; i < result.size(); ++i) {
        double expected = 0.0;
        for (Rank from = 0; from < test.world; ++from) {
          expected += ranks.weight(from) * ranks.original(from, array)[i];
        }
        if (test.op == kernels::ReduceOp::avg) expected /= total_weight;
        REQUIRE(result[i] == doctest::Approx(expected));
        REQUIRE(std::memcmp(&result[i], &ranks.result(0, array)[i], sizeof(float)) == 0);
      }
    }
  }
}

void expect_inputs_restored(const Case& test, Ranks& ranks) {
  for (Rank rank = 0; rank < test.world; ++rank) {
    ranks.operations()[static_cast<std::size_t>(rank)]->roll_back();
    for (std::size_t array = 0; array < test.counts.size(); ++array) {
      REQUIRE(ranks.input(rank, array) == ranks.original(rank, array));
    }
  }
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  const std::vector<std::vector<std::uint64_t>> shapes{
      {1}, {7}, {1000}, {0, 5, 0, 130}, std::vector<std::uint64_t>(60, 3)};
  for (Rank world = 1; world <= 5; ++world) {
    for (const auto& counts : shapes) {
      for (const bool in_place : {true, false}) {
        for (const auto algorithm :
             {PYCCL_ALGORITHM_RING, PYCCL_ALGORITHM_DIRECT, PYCCL_ALGORITHM_ONE_SHOT}) {
          for (const auto op : {kernels::ReduceOp::sum, kernels::ReduceOp::avg}) {
            cases.push_back({world, counts, in_place, algorithm, op, {}});
            cases.push_back({world, counts, in_place, algorithm, op,
                             std::vector<double>(static_cast<std::size_t>(world), 0.5)});
            cases.back().weights[0] = world == 1 ? 2.0 : 0.0;
          }
        }
      }
    }
  }
  return cases;
}

}  // namespace

TEST_CASE("an operation gives all ranks the same, right bits") {
  std::uint64_t seed = 0;
  for (const Case& test : all_cases()) {
    Ranks ranks(test, ++seed);
    ranks.begin(1);
    REQUIRE(ranks.run(10'000'000));
    expect_results(test, ranks);
  }
}

TEST_CASE("an attempt that is broken off leaves the inputs as they were, and the next succeeds") {
  std::uint64_t seed = 1000;
  for (const Case& test : all_cases()) {
    Ranks broken(test, ++seed);
    broken.begin(1);
    broken.run(1 + seed % 97);
    for (auto& operation : broken.operations()) operation->halt();
    expect_inputs_restored(test, broken);

    Ranks retried(test, ++seed);
    for (std::uint32_t attempt = 1; attempt < 3; ++attempt) {
      retried.begin(attempt);
      retried.run(1 + seed % 97);
    }
    retried.begin(3);
    REQUIRE(retried.run(10'000'000));
    expect_results(test, retried);
  }
}

TEST_CASE("segments that fit no transfer are thrown away") {
  const Case test{2, {100}, true, PYCCL_ALGORITHM_DIRECT, kernels::ReduceOp::sum, {}};
  Ranks ranks(test, 5);
  ranks.begin(1);
  for (const auto& [step, offset, length] :
       {std::tuple{9, 0, 64}, {0, 3, 64}, {0, 1 << 20, 64}, {0, 0, 63}, {0, 0, 1 << 20}}) {
    transport::SegmentHeader header;
    header.op = ranks.operations()[0]->id();
    header.step = static_cast<std::uint16_t>(step);
    header.offset = static_cast<std::uint64_t>(offset);
    header.length = static_cast<std::uint32_t>(length);
    transport::MutablePieces target;
    ranks.operations()[0]->segment({101}, header, 7, target);
    CHECK(target.empty());
  }
  REQUIRE(ranks.run(1'000'000));
  expect_results(test, ranks);
}
