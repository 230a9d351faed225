// Every collective by every algorithm it has, at all ranks against each other, compared with a
// plain computation: in place and apart, lists, weights, uneven shares, broken-off attempts.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "attempts.hpp"
#include "engine/layout.hpp"

using namespace pyccl;
using namespace pyccl::engine;
using collectives::Algorithm;
using collectives::Kind;

namespace {

constexpr std::uint32_t segment_bytes = 64;

struct Case {
  Kind kind = Kind::all_reduce;
  Algorithm algorithm = Algorithm::automatic;
  Rank world = 2;
  std::vector<std::uint64_t> counts;  // of each array: of the whole, or one rank's share
  bool in_place = false;
  kernels::ReduceOp op = kernels::ReduceOp::sum;
  std::vector<double> weights;         // empty: all 1
  std::vector<std::uint64_t> shares;   // of a single array, by rank
  std::vector<std::uint64_t> amounts;  // all_to_all: what rank i has for rank j, at i * world + j
  Rank root = -1;
};

std::uint64_t sum(const std::vector<std::uint64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::uint64_t{0});
}

// A case with memory for all ranks.
class Group {
 public:
  Group(const Case& test, std::uint64_t seed) : test_(test), prng_(seed) {
    for (Rank rank = 0; rank < test.world; ++rank) {
      memory_.emplace_back();
      for (const std::uint64_t count : test.counts) memory_.back().push_back(make(rank, count));
    }
    for (const auto& arrays : memory_) {
      originals_.emplace_back();
      for (const Memory& array : arrays) {
        const float* begin = input_of(array);
        originals_.back().emplace_back(begin, begin + array.input_count);
      }
    }
  }

  std::vector<Request> requests() {
    std::vector<Request> requests;
    for (Rank rank = 0; rank < test_.world; ++rank) requests.push_back(request_of(rank));
    return requests;
  }

  void expect_results() const {
    for (Rank rank = 0; rank < test_.world; ++rank) {
      for (std::size_t i = 0; i < test_.counts.size(); ++i) {
        const Memory& array = memory_[static_cast<std::size_t>(rank)][i];
        const std::vector<float> wanted = expected(rank, i);
        CAPTURE(rank);
        CAPTURE(i);
        REQUIRE(wanted.size() == array.output_count);
        for (std::size_t k = 0; k < wanted.size(); ++k) {
          CAPTURE(k);
          REQUIRE(array.output[k] == doctest::Approx(wanted[k]));
        }
        if (!test_.in_place) expect_input(rank, i);
      }
    }
  }

  // Where results replace the input, it is what it was.
  void expect_inputs() const {
    for (Rank rank = 0; rank < test_.world; ++rank) {
      for (std::size_t i = 0; i < test_.counts.size(); ++i) expect_input(rank, i);
    }
  }

 private:
  struct Memory {
    std::vector<float> apart;  // empty: in place
    std::vector<float> output;
    std::uint64_t begin = 0;  // of the input in the output, in place
    std::uint64_t input_count = 0;
    std::uint64_t output_count = 0;
  };

  // Small integers: their sums are exact in any order.
  float random_value() { return static_cast<float>(prng_.below(64)) - 32.0f; }

  std::uint64_t share(Rank rank, std::uint64_t count) const {
    return test_.shares.empty() ? count : test_.shares[static_cast<std::size_t>(rank)];
  }
  std::uint64_t whole(std::uint64_t count) const {
    return test_.shares.empty() ? count * static_cast<std::uint64_t>(test_.world)
                                : sum(test_.shares);
  }
  std::uint64_t begin_of(Rank rank, std::uint64_t count) const {
    std::uint64_t begin = 0;
    for (Rank each = 0; each < rank; ++each) begin += share(each, count);
    return begin;
  }
  std::uint64_t amount(Rank from, Rank to, std::uint64_t count) const {
    if (test_.amounts.empty()) return count / static_cast<std::uint64_t>(test_.world);
    return test_.amounts[static_cast<std::size_t>(from * test_.world + to)];
  }

  Memory make(Rank rank, std::uint64_t count) {
    Memory memory;
    const bool root = rank == test_.root;
    memory.input_count = memory.output_count = count;
    switch (test_.kind) {
      case Kind::all_gather:
      case Kind::gather:
        memory.input_count = share(rank, count);
        memory.output_count = test_.kind == Kind::all_gather || root ? whole(count) : 0;
        memory.begin = begin_of(rank, count);
        break;
      case Kind::reduce_scatter:
      case Kind::scatter:
        memory.input_count = test_.kind == Kind::reduce_scatter || root ? whole(count) : 0;
        memory.output_count = share(rank, count);
        break;
      case Kind::all_to_all:
        memory.input_count = memory.output_count = 0;
        for (Rank other = 0; other < test_.world; ++other) {
          memory.input_count += amount(rank, other, count);
          memory.output_count += amount(other, rank, count);
        }
        break;
      case Kind::broadcast:
        if (!root) memory.input_count = 0;
        break;
      case Kind::reduce:
        if (!root) memory.output_count = 0;
        break;
      case Kind::send: (rank == 0 ? memory.output_count : memory.input_count) = 0; break;
      default: break;
    }
    const bool in_place = test_.in_place && memory.input_count > 0 && memory.output_count > 0;
    memory.output.assign(memory.output_count, -1.0f);
    if (in_place) {
      memory.output.resize(std::max(memory.output_count, memory.begin + memory.input_count), -1.0f);
    } else {
      memory.begin = 0;
      memory.apart.resize(memory.input_count);
    }
    float* input = in_place ? memory.output.data() + memory.begin : memory.apart.data();
    for (std::uint64_t i = 0; i < memory.input_count; ++i) input[i] = random_value();
    return memory;
  }

  static const float* input_of(const Memory& memory) {
    return memory.apart.empty() ? memory.output.data() + memory.begin : memory.apart.data();
  }

  Request request_of(Rank rank) {
    Request request;
    request.kind = test_.kind;
    request.algorithm = test_.algorithm;
    request.op = test_.op;
    request.weight = weight(rank);
    request.root = test_.root;
    request.shares = test_.shares;
    for (Rank other = 0; !test_.amounts.empty() && other < test_.world; ++other) {
      request.send_shares.push_back(amount(rank, other, 0));
      request.receive_shares.push_back(amount(other, rank, 0));
    }
    for (Memory& array : memory_[static_cast<std::size_t>(rank)]) {
      request.arrays.push_back({reinterpret_cast<const std::byte*>(input_of(array)),
                                reinterpret_cast<std::byte*>(array.output.data()),
                                kernels::DataType::f32, array.input_count, array.output_count});
    }
    if (cut_by_rank(request)) request.on_loss = OnLoss::raise;
    return request;
  }

  double weight(Rank rank) const {
    return test_.weights.empty() ? 1.0 : test_.weights[static_cast<std::size_t>(rank)];
  }

  const std::vector<float>& input(Rank rank, std::size_t array) const {
    return originals_[static_cast<std::size_t>(rank)][array];
  }

  std::vector<float> reduced(std::size_t array) const {
    double total = 0.0;
    std::vector<float> result(input(0, array).size());
    for (Rank from = 0; from < test_.world; ++from) total += weight(from);
    for (std::size_t i = 0; i < result.size(); ++i) {
      double value = 0.0;
      for (Rank from = 0; from < test_.world; ++from) value += weight(from) * input(from, array)[i];
      result[i] = static_cast<float>(test_.op == kernels::ReduceOp::avg ? value / total : value);
    }
    return result;
  }

  static void append(std::vector<float>& all, const std::vector<float>& from, std::uint64_t begin,
                     std::uint64_t count) {
    const auto first = from.begin() + static_cast<std::ptrdiff_t>(begin);
    all.insert(all.end(), first, first + static_cast<std::ptrdiff_t>(count));
  }

  std::vector<float> expected(Rank rank, std::size_t array) const {
    const std::uint64_t count = test_.counts[array];
    const bool root = rank == test_.root;
    std::vector<float> all;
    switch (test_.kind) {
      case Kind::all_reduce: return reduced(array);
      case Kind::reduce: return root ? reduced(array) : all;
      case Kind::reduce_scatter:
        append(all, reduced(array), begin_of(rank, count), share(rank, count));
        return all;
      case Kind::all_gather:
      case Kind::gather:
        for (Rank from = 0; from < test_.world && (root || test_.root < 0); ++from) {
          append(all, input(from, array), 0, share(from, count));
        }
        return all;
      case Kind::scatter:
        append(all, input(test_.root, array), begin_of(rank, count), share(rank, count));
        return all;
      case Kind::broadcast: return input(test_.root, array);
      case Kind::all_to_all:
        for (Rank from = 0; from < test_.world; ++from) {
          std::uint64_t begin = 0;
          for (Rank to = 0; to < rank; ++to) begin += amount(from, to, count);
          append(all, input(from, array), begin, amount(from, rank, count));
        }
        return all;
      case Kind::send: return rank == 1 ? input(0, array) : all;
      case Kind::exchange: return input(1 - rank, array);
      case Kind::barrier: break;
    }
    return all;
  }

  void expect_input(Rank rank, std::size_t array) const {
    const Memory& memory = memory_[static_cast<std::size_t>(rank)][array];
    const std::vector<float>& original = input(rank, array);
    REQUIRE(std::equal(original.begin(), original.end(), input_of(memory)));
  }

  Case test_;
  Prng prng_;
  std::vector<std::vector<Memory>> memory_;                 // by rank and array
  std::vector<std::vector<std::vector<float>>> originals_;  // inputs
};

bool rooted(Kind kind) {
  return kind == Kind::broadcast || kind == Kind::reduce || kind == Kind::gather ||
         kind == Kind::scatter;
}

constexpr Kind kinds[] = {
    Kind::all_reduce, Kind::all_gather, Kind::all_to_all, Kind::reduce_scatter, Kind::broadcast,
    Kind::reduce,     Kind::gather,     Kind::scatter,    Kind::send,           Kind::exchange};

void add_uneven(std::vector<Case>& cases, Case test) {
  test.counts = {0};
  if (test.kind == Kind::all_to_all) {
    for (int i = 0; i < test.world * test.world; ++i) {
      test.amounts.push_back(static_cast<std::uint64_t>(i * 7 % 40));
    }
    cases.push_back(test);
    return;
  }
  for (Rank rank = 0; rank < test.world; ++rank) {
    test.shares.push_back(static_cast<std::uint64_t>(rank % 3 * 33));
  }
  cases.push_back(test);
}

void add_cases(std::vector<Case>& cases, Case test) {
  for (const auto& counts : std::vector<std::vector<std::uint64_t>>{
           {1}, {7}, {300}, {0, 5, 0, 130}, std::vector<std::uint64_t>(60, 3)}) {
    test.counts = counts;
    if (test.kind == Kind::all_to_all) {
      for (std::uint64_t& count : test.counts) count *= static_cast<std::uint64_t>(test.world);
    }
    cases.push_back(test);
    if (!reduces(test.kind)) continue;
    Case weighted = test;
    weighted.op = kernels::ReduceOp::avg;
    weighted.weights.assign(static_cast<std::size_t>(test.world), 0.5);
    weighted.weights[0] = test.world == 1 ? 2.0 : 0.0;
    cases.push_back(weighted);
  }
  if (test.kind == Kind::all_gather || test.kind == Kind::reduce_scatter ||
      test.kind == Kind::gather || test.kind == Kind::scatter || test.kind == Kind::all_to_all) {
    add_uneven(cases, test);
  }
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const Kind kind : kinds) {
    const bool pair = kind == Kind::send || kind == Kind::exchange;
    for (Rank world = pair ? 2 : 1; world <= (pair ? 2 : 6); ++world) {
      for (int number = 1; number < PYCCL_ALGORITHM_COUNT; ++number) {
        const auto algorithm = static_cast<Algorithm>(number);
        if (!collectives::offers(kind, algorithm)) continue;
        for (const bool in_place : {true, false}) {
          Case test;
          test.kind = kind;
          test.algorithm = algorithm;
          test.world = world;
          test.in_place = in_place;
          if (rooted(kind)) test.root = (world * 2 + number) % world;
          add_cases(cases, test);
        }
      }
    }
  }
  return cases;
}

std::string name_of(const Case& test) {
  return std::string(collectives::name_of(test.kind)) + " by " +
         std::string(collectives::name_of(test.algorithm)) + ", " + std::to_string(test.world) +
         " ranks, root " + std::to_string(test.root) + ", " + std::to_string(test.counts.size()) +
         " arrays of " + std::to_string(test.counts.back()) + (test.in_place ? ", in place" : "") +
         (test.weights.empty() ? "" : ", weighted") +
         (test.shares.empty() && test.amounts.empty() ? "" : ", uneven");
}

}  // namespace

TEST_CASE("an operation gives all ranks the right bits") {
  std::uint64_t seed = 0;
  for (const Case& test : all_cases()) {
    const std::string name = name_of(test);
    CAPTURE(name);
    Group group(test, ++seed);
    Ranks ranks(group.requests(), segment_bytes, seed);
    ranks.begin(1);
    REQUIRE(ranks.run(10'000'000));
    finish(group, ranks);
  }
}

TEST_CASE("an attempt that is broken off leaves the inputs as they were, and the next succeeds") {
  std::uint64_t seed = 1000;
  for (const Case& test : all_cases()) {
    const std::string name = name_of(test);
    CAPTURE(name);
    ++seed;
    break_off(Group(test, seed), segment_bytes, seed, 1 + seed % 97);
    ++seed;
    retry(Group(test, seed), segment_bytes, seed, 1 + seed % 97);
  }
}

TEST_CASE("segments that fit no transfer are thrown away") {
  Case test;
  test.counts = {100};
  test.algorithm = Algorithm::direct;
  test.in_place = true;
  Group group(test, 5);
  Ranks ranks(group.requests(), segment_bytes, 5);
  ranks.begin(1);
  for (const auto& [step, offset, length] :
       {std::tuple{9, 0, 64}, {0, 3, 64}, {0, 1 << 20, 64}, {0, 0, 63}, {0, 0, 1 << 20}}) {
    transport::SegmentHeader header;
    header.op = ranks.operation(0).id();
    header.step = static_cast<std::uint16_t>(step);
    header.offset = static_cast<std::uint64_t>(offset);
    header.length = static_cast<std::uint32_t>(length);
    transport::MutablePieces target;
    ranks.operation(0).segment(ranks.peer(1), header, 7, target);
    CHECK(target.empty());
  }
  REQUIRE(ranks.run(1'000'000));
  finish(group, ranks);
}
