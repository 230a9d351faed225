// Quantized operations at all ranks against each other, bit by bit against what the kernels make of
// the same numbers one after the other.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "attempts.hpp"
#include "engine/layout.hpp"
#include "kernels/quantize.hpp"

using namespace pyccl;
using namespace pyccl::engine;
using collectives::Algorithm;
using collectives::Kind;
using kernels::Codec;
using kernels::DataType;

namespace {

constexpr std::uint32_t segment_bytes = 4096;
constexpr Rank root = 1;  // of broadcasts

struct Case {
  Kind kind = Kind::all_reduce;
  Algorithm algorithm = Algorithm::automatic;
  Rank world = 3;
  std::vector<std::uint64_t> counts{1000};  // of each array: of the whole, or one rank's share
  DataType dtype = DataType::f32;
  bool in_place = true;
  kernels::ReduceOp op = kernels::ReduceOp::sum;
  std::vector<double> weights;  // empty: all 1
  Quantization quantization{
      {Codec::int8, 64, DataType::f32}, DataType::f32, kernels::Rounding::nearest, 7, false};
};

using Numbers = std::vector<float>;

// As an array of that type holds them.
Bytes narrowed(const Numbers& numbers, DataType dtype) {
  Bytes bytes(numbers.size() * kernels::size_of(dtype));
  kernels::narrow(numbers.data(), numbers.size(), bytes.data(), dtype);
  return bytes;
}

Numbers widened(const Bytes& bytes, DataType dtype) {
  Numbers numbers(bytes.size() / kernels::size_of(dtype));
  kernels::widen(bytes.data(), dtype, numbers.size(), numbers.data());
  return numbers;
}

class Group {
 public:
  Group(const Case& test, std::uint64_t seed) : test_(test), prng_(seed) {
    for (Rank rank = 0; rank < test.world; ++rank) {
      memory_.emplace_back();
      originals_.emplace_back();
      for (const std::uint64_t count : test.counts) {
        memory_.back().push_back(make(rank, count));
        originals_.back().push_back(memory_.back().back().input);
      }
    }
  }

  std::vector<Request> requests() {
    std::vector<Request> requests;
    for (Rank rank = 0; rank < test_.world; ++rank) {
      Request request;
      request.kind = test_.kind;
      request.algorithm = test_.algorithm;
      request.op = test_.op;
      request.weight = weight(rank);
      request.root = test_.kind == Kind::broadcast ? root : -1;
      request.quantization = test_.quantization;
      for (Memory& array : memory_[index(rank)]) {
        const std::size_t size = kernels::size_of(test_.dtype);
        request.arrays.push_back({array.input.data(), array.output(), test_.dtype,
                                  array.input.size() / size, array.output_bytes / size});
      }
      if (cut_by_rank(request)) request.on_loss = OnLoss::raise;
      REQUIRE(check(request).ok());
      requests.push_back(request);
    }
    return requests;
  }

  void expect_results() const {
    for (Rank rank = 0; rank < test_.world; ++rank) {
      for (std::size_t i = 0; i < test_.counts.size(); ++i) {
        CAPTURE(rank);
        CAPTURE(i);
        const Memory& array = memory_[index(rank)][i];
        const Bytes wanted = expected(rank, i);
        REQUIRE(wanted.size() == array.output_bytes);
        REQUIRE(std::equal(wanted.begin(), wanted.end(), array.output()));
        if (!array.apart.empty()) REQUIRE(array.input == originals_[index(rank)][i]);
      }
    }
  }

  void expect_inputs() const {
    for (Rank rank = 0; rank < test_.world; ++rank) {
      for (std::size_t i = 0; i < test_.counts.size(); ++i) {
        // What others than the root have is not read, and need not be kept.
        if (test_.kind == Kind::broadcast && rank != root) continue;
        REQUIRE(memory_[index(rank)][i].input == originals_[index(rank)][i]);
      }
    }
  }

 private:
  struct Memory {
    Bytes input;  // and the output, in place
    Bytes apart;
    std::size_t output_bytes = 0;
    std::byte* output() { return apart.empty() ? input.data() : apart.data(); }
    const std::byte* output() const { return apart.empty() ? input.data() : apart.data(); }
  };

  static std::size_t index(Rank rank) { return static_cast<std::size_t>(rank); }

  bool replaces() const {
    return test_.kind == Kind::all_reduce || test_.kind == Kind::broadcast ||
           test_.kind == Kind::exchange;
  }

  // Of unlike magnitude from place to place, so that blocks can't be mistaken for each other. On a
  // ring, whose order of adding up is its own, small whole numbers: their sums are exact in bf16.
  // Where they are to be compressed, mostly nothing.
  float random_value(std::uint64_t place) {
    if (test_.algorithm == Algorithm::ring) return static_cast<float>(prng_.below(41)) - 20.0f;
    if (test_.quantization.zstd && !prng_.chance(1, 20)) return 0.0f;
    const double value = static_cast<double>(prng_.below(20'001)) - 10'000.0;
    return static_cast<float>(std::ldexp(value, -static_cast<int>(place / 50 % 9)));
  }

  Memory make(Rank, std::uint64_t count) {
    const auto world = static_cast<std::uint64_t>(test_.world);
    const bool cut = test_.kind == Kind::reduce_scatter;
    Numbers numbers(cut ? count * world : count);
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = random_value(i);
    Memory memory{narrowed(numbers, test_.dtype), {}, 0};
    const std::size_t size = kernels::size_of(test_.dtype);
    memory.output_bytes = size * (test_.kind == Kind::all_gather ? count * world : count);
    if (!test_.in_place || !replaces()) memory.apart.resize(memory.output_bytes + 1);
    return memory;
  }

  double weight(Rank rank) const {
    return test_.weights.empty() ? 1.0 : test_.weights[index(rank)];
  }

  // What a peer makes of numbers that came in blocks which begin with the first of them.
  Numbers rounded(Numbers numbers, std::uint64_t seed, std::size_t first_block = 0) const {
    const kernels::BlockFormat& format = test_.quantization.format;
    Bytes blocks((numbers.size() / format.block + 1) * kernels::block_bytes(format));
    auto* at = reinterpret_cast<std::byte*>(numbers.data());
    kernels::encode({.source = at,
                     .count = numbers.size(),
                     .destination = blocks.data(),
                     .format = format,
                     .rounding = {test_.quantization.rounding, seed, first_block}});
    kernels::decode(
        {.source = blocks.data(), .format = format, .count = numbers.size(), .destination = at});
    return numbers;
  }

  Numbers input(Rank rank, std::size_t array) const {
    return widened(originals_[index(rank)][array], test_.dtype);
  }

  static Numbers part(const Numbers& numbers, std::size_t begin, std::size_t count) {
    const auto at = numbers.begin() + static_cast<std::ptrdiff_t>(begin);
    return Numbers(at, at + static_cast<std::ptrdiff_t>(count));
  }

  // What the contributions of all ranks add up to, in their order.
  Numbers sum(std::size_t array, std::size_t begin, std::size_t count) const {
    Numbers total;
    double weights = 0.0;
    for (Rank rank = 0; rank < test_.world; ++rank) {
      weights += weight(rank);
      if (weight(rank) == 0.0) continue;
      const Numbers given = part(input(rank, array), begin, count);
      const bool whole = test_.algorithm == Algorithm::ring;
      const Numbers own = whole ? given : rounded(given, test_.quantization.seed);
      const auto factor = static_cast<float>(weight(rank));
      for (std::size_t i = 0; i < count; ++i) {
        if (total.size() <= i) {
          total.push_back(factor * own[i]);
        } else {
          total[i] += factor * own[i];
        }
      }
    }
    if (test_.op != kernels::ReduceOp::avg) return total;
    for (float& value : total) value /= static_cast<float>(weights);
    return total;
  }

  Bytes expected(Rank rank, std::size_t array) const {
    const std::uint64_t seed = test_.quantization.seed;
    const std::size_t count = test_.counts[array];
    switch (test_.kind) {
      case Kind::all_reduce:
        return narrowed(rounded(sum(array, 0, count), seed ^ result_salt), test_.dtype);
      case Kind::reduce_scatter:
        return narrowed(sum(array, index(rank) * count, count), test_.dtype);
      case Kind::broadcast: return narrowed(rounded(input(root, array), seed), test_.dtype);
      case Kind::exchange: return narrowed(rounded(input(1 - rank, array), seed), test_.dtype);
      default: break;
    }
    Bytes all;
    for (Rank from = 0; from < test_.world; ++from) {
      const Bytes share = narrowed(rounded(input(from, array), seed), test_.dtype);
      all.insert(all.end(), share.begin(), share.end());
    }
    return all;
  }

  Case test_;
  Prng prng_;
  std::vector<std::vector<Memory>> memory_;    // by rank and array
  std::vector<std::vector<Bytes>> originals_;  // inputs
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  const std::vector<std::vector<std::uint64_t>> lists{
      {1}, {64}, {1000}, {0, 5, 0, 130}, std::vector<std::uint64_t>(40, 3), {20'000}};
  for (const Kind kind : {Kind::all_reduce, Kind::reduce_scatter, Kind::all_gather, Kind::broadcast,
                          Kind::exchange}) {
    const bool pair = kind == Kind::exchange;
    for (Rank world = 2; world <= (pair ? 2 : 5); ++world) {
      for (const auto& counts : lists) {
        for (const bool in_place : {true, false}) {
          Case test;
          test.kind = kind;
          test.world = world;
          test.counts = counts;
          test.in_place = in_place;
          cases.push_back(test);
        }
      }
    }
  }
  return cases;
}

void add_codecs(std::vector<Case>& cases) {
  for (int number = 1; number < PYCCL_CODEC_COUNT; ++number) {
    for (const DataType dtype : {DataType::f32, DataType::f64, DataType::f16, DataType::bf16}) {
      Case test;
      test.counts = {700, 33};
      test.dtype = dtype;
      test.quantization.format = {static_cast<Codec>(number), 32u * (1 + number % 3),
                                  number % 2 == 0 ? DataType::bf16 : DataType::f32};
      test.quantization.rounding = static_cast<kernels::Rounding>(number / 2 % 2);
      test.quantization.zstd = number % 3 == 0;
      test.op = kernels::ReduceOp::avg;
      test.weights = {0.5, 0.0, 2.0};
      cases.push_back(test);
    }
  }
}

std::string name_of(const Case& test) {
  return std::string(collectives::name_of(test.kind)) + " of " +
         std::string(kernels::name_of(test.dtype)) + " as " +
         std::string(kernels::name_of(test.quantization.format.codec)) + ", " +
         std::to_string(test.world) + " ranks, " + std::to_string(test.counts.size()) +
         " arrays of " + std::to_string(test.counts.back()) + (test.in_place ? ", in place" : "");
}

void add_rings(std::vector<Case>& cases) {
  for (const DataType partial : {DataType::f32, DataType::bf16}) {
    for (Rank world = 2; world <= 5; ++world) {
      for (const DataType dtype : {DataType::f32, DataType::f64, DataType::f16}) {
        Case test;
        test.algorithm = Algorithm::ring;
        test.world = world;
        test.dtype = dtype;
        test.counts = {33, 3000};
        test.quantization.partial = partial;
        test.in_place = world % 2 == 0;
        cases.push_back(test);
      }
    }
  }
}

// Of one whole rank: that something was compressed.
std::uint64_t packed_bytes(Ranks& ranks) {
  std::uint64_t bytes = 0;
  for (Rank rank = 0; rank < ranks.world(); ++rank) {
    bytes += ranks.operation(rank).info(Time{}, false).bytes_packed;
  }
  return bytes;
}

}  // namespace

TEST_CASE("a quantized operation gives what its kernels give, to all ranks") {
  std::vector<Case> cases = all_cases();
  add_codecs(cases);
  add_rings(cases);
  std::uint64_t seed = 0;
  for (const Case& test : cases) {
    const std::string name = name_of(test);
    CAPTURE(name);
    Group group(test, ++seed);
    Ranks ranks(group.requests(), segment_bytes, seed, collectives::Reach::network);
    ranks.begin(1);
    REQUIRE(ranks.run(10'000'000));
    finish(group, ranks);
    CHECK((packed_bytes(ranks) > 0) == test.quantization.zstd);
  }
}

TEST_CASE("blocks are not compressed within a host") {
  Case test;
  test.quantization.zstd = true;
  Group group(test, 3);
  Ranks ranks(group.requests(), segment_bytes, 3);
  ranks.begin(1);
  REQUIRE(ranks.run(10'000'000));
  finish(group, ranks);
  CHECK(packed_bytes(ranks) == 0);
}

TEST_CASE("what can't be decompressed refuses the operation, and names who sent it") {
  const Case test;
  Group group(test, 4);
  Ranks ranks(group.requests(), segment_bytes, 4);
  ranks.begin(1);
  Operation& operation = ranks.operation(0);
  for (const std::uint32_t length : {1u, 40u}) {
    transport::SegmentHeader header;
    header.op = operation.id();
    header.length = length;
    transport::MutablePieces target;
    operation.segment(ranks.peer(1), header, length, target);
    REQUIRE(target.view().size() == 1);
    REQUIRE(target.view().front().size() == length);
    std::memset(target.view().front().data(), 0x28, length);
    const Status status = operation.segment_end(ranks.peer(1), header, length, true);
    CHECK(status.code() == Code::protocol_violation);
    CHECK(status.reason().find("rank 0 can't decompress what rank 1 has sent") == 0);
  }
  operation.roll_back();
  for (Rank rank = 1; rank < ranks.world(); ++rank) ranks.operation(rank).roll_back();
  CHECK(ranks.slots_out() == 0);
}

TEST_CASE("a quantized attempt that is broken off leaves the inputs, and the next succeeds") {
  std::uint64_t seed = 1000;
  for (const Case& test : all_cases()) {
    const std::string name = name_of(test);
    CAPTURE(name);
    ++seed;
    break_off(Group(test, seed), segment_bytes, seed, 1 + seed % 61);
    ++seed;
    retry(Group(test, seed), segment_bytes, seed, 1 + seed % 61);
  }
}

TEST_CASE(
    "in place the arrays hold the input until the result stands, and then get it bit by bit") {
  for (const Algorithm algorithm : {Algorithm::automatic, Algorithm::ring}) {
    Case test;
    test.algorithm = algorithm;
    test.counts = {5, 20'000};
    Group group(test, 6);
    Ranks ranks(group.requests(), segment_bytes, 6);
    ranks.begin(1);
    REQUIRE(ranks.run(10'000'000));
    group.expect_inputs();
    for (Rank rank = 0; rank < ranks.world(); ++rank) {
      Operation& operation = ranks.operation(rank);
      operation.commit();
      std::size_t turns = 1;
      while (operation.publish(8 * 1024)) ++turns;
      CHECK(turns > 5);
      CHECK(operation.info(Time{}, false).quantization_step > 0);
    }
    group.expect_results();
    CHECK(ranks.slots_out() == 0);
  }
}
