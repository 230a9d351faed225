// Lists of arrays: what is packed, how many pieces a segment has, and what is in the arrays when.
#include "engine/part_memory.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <new>
#include <numeric>
#include <vector>

using namespace pyccl;
using namespace pyccl::engine;

namespace {

constexpr std::uint32_t segment_bytes = 6 * 1024;

struct List {
  explicit List(const std::vector<std::size_t>& counts, bool in_place) {
    for (const std::size_t count : counts) {
      std::vector<std::int32_t>& input = inputs.emplace_back(count);
      for (auto& each : input) each = value++;
      outputs.emplace_back(in_place ? 0 : count);
    }
    for (std::size_t i = 0; i < counts.size(); ++i) {
      auto* input = reinterpret_cast<std::byte*>(inputs[i].data());
      auto* output = in_place ? input : reinterpret_cast<std::byte*>(outputs[i].data());
      input_runs.add(input, 4 * counts[i], false);
      output_runs.add(output, 4 * counts[i], false);
    }
    bytes = input_runs.bytes();
    memory.lay_out(input_runs, output_runs, Overlap::paired, segment_bytes);
  }
  std::vector<std::int32_t> read(bool in_place) const {
    std::vector<std::int32_t> all;
    for (const auto& each : in_place ? inputs : outputs) {
      all.insert(all.end(), each.begin(), each.end());
    }
    return all;
  }

  std::int32_t value = 0;
  std::uint64_t bytes = 0;
  RunList input_runs;
  RunList output_runs;
  std::vector<std::vector<std::int32_t>> inputs;
  std::vector<std::vector<std::int32_t>> outputs;
  MemoryPool pool;
  PartMemory memory{kernels::DataType::i32, pool};
};

// Adds 1000 to every element of [first, upto), segment by segment, as results arrive.
void overwrite(List& list, std::uint64_t first, std::uint64_t upto) {
  for (std::uint64_t begin = first; begin < upto; begin += segment_bytes) {
    const ByteRange range{begin, std::min(begin + segment_bytes, upto)};
    std::vector<std::int32_t> values;
    transport::Pieces input;
    list.memory.input_pieces(range, input);
    CHECK(input.view().size() <= transport::pieces_max);
    for (const ByteView piece : input.view()) {
      const auto* from = reinterpret_cast<const std::int32_t*>(piece.data());
      values.insert(values.end(), from, from + piece.size() / 4);
    }
    REQUIRE(values.size() * 4 == range.size());
    list.memory.before_result(range);
    transport::MutablePieces result;
    list.memory.result_pieces(range, result);
    const std::int32_t* next = values.data();
    for (const MutableByteView piece : result.view()) {
      auto* to = reinterpret_cast<std::int32_t*>(piece.data());
      for (std::size_t i = 0; i < piece.size() / 4; ++i) to[i] = *next++ + 1000;
    }
  }
}

std::vector<std::size_t> like_a_model() {
  std::vector<std::size_t> counts;
  for (int block = 0; block < 20; ++block) {
    counts.push_back(5000);
    for (int i = 0; i < 30; ++i) counts.push_back(static_cast<std::size_t>(1 + i % 3));
    for (int i = 0; i < 12; ++i) {
      counts.push_back(segment_bytes / 6 / 4);  // just large enough to stay
      counts.push_back(1);
    }
  }
  return counts;
}

}  // namespace

TEST_CASE("a list of arrays: results go in, a failure leaves what was there") {
  for (const bool in_place : {true, false}) {
    CAPTURE(in_place);
    List list(like_a_model(), in_place);
    const std::vector<std::int32_t> before = list.read(true);
    const std::uint64_t all = list.bytes;
    const std::uint64_t third = all / 12 * 4;
    list.memory.begin({});
    overwrite(list, 0, all);
    list.memory.restore();
    CHECK(list.read(true) == before);
    // Attempts that end early and cut the list in other places.
    list.memory.begin({});
    overwrite(list, 4 * 101, third);
    list.memory.begin({});
    overwrite(list, all / 32 * 16, all);
    list.memory.restore();
    CHECK(list.read(true) == before);
    list.memory.begin({});
    overwrite(list, 4 * 7, third);
    list.memory.begin({});
    overwrite(list, 4 * 99, all / 32 * 16);
    list.memory.begin({});
    overwrite(list, 0, all);
    list.memory.publish();
    std::vector<std::int32_t> wanted = before;
    for (auto& each : wanted) each += 1000;
    CHECK(list.read(in_place) == wanted);
  }
}

TEST_CASE("a list of arrays: only what is small is copied") {
  const std::vector<std::size_t> counts = like_a_model();
  const auto small = std::accumulate(counts.begin(), counts.end(), std::size_t{0},
                                     [](std::size_t sum, std::size_t count) {
                                       return sum + (count < segment_bytes / 6 / 4 ? count : 0);
                                     });
  for (const bool in_place : {false, true}) {
    List list(counts, in_place);
    list.memory.begin({});
    const std::uint64_t wanted = in_place ? list.bytes : 4 * small;
    CHECK(list.memory.work_bytes() >= wanted);
    CHECK(list.memory.work_bytes() < wanted + 16384);
  }
}

TEST_CASE("a list of arrays: large ones are not copied at all") {
  List list(std::vector<std::size_t>(100, 3000), false);
  list.memory.begin({list.bytes, true});
  CHECK(list.memory.work_bytes() == 0);
}

TEST_CASE("without memory an attempt does not begin, and the arrays keep what they held") {
  for (const bool in_place : {false, true}) {
    List list(like_a_model(), in_place);
    const std::vector<std::int32_t> before = list.read(true);
    list.pool.limit(0);
    CHECK_THROWS_AS(list.memory.begin({list.bytes, true}), std::bad_alloc);
    list.memory.restore();
    CHECK(list.read(true) == before);
    list.pool.limit(1 << 30);
    list.memory.begin({list.bytes, true});
    CHECK(list.read(true) == before);
  }
}

TEST_CASE("a result that is the input needs no memory") {
  List list({100'000}, true);
  list.memory.begin({.keeps = false});
  CHECK(list.memory.work_bytes() == 0);
}
