// Every target equals scalar bit for bit, and scalar equals the reference, for every type,
// operation, number of sources and awkward count, wherever the operands lie.
#include <doctest/doctest.h>

#include <algorithm>
#include <cfenv>
#include <cstring>
#include <string>

#include "kernels/kernels.hpp"
#include "kernels/reference.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace pyccl::kernels {
namespace {

constexpr std::size_t source_count_max = 9;
constexpr std::size_t counts[] = {0, 1, 2, 7, 31, 64, 65, 1000, 4099};
constexpr std::size_t count_max = 4099;

struct Scale {
  std::vector<double> weights;
  double divisor = 1;
};

std::string text_of(const Pair& pair) {
  return std::string(name_of(pair.op)) + " of " + std::string(name_of(pair.type));
}

FoldFunction fold_of(const Target& target, const Pair& pair) {
  return target.fold[static_cast<int>(pair.type)][static_cast<int>(pair.op)];
}

std::vector<std::vector<std::byte>> random_sources(const Pair& pair, std::size_t source_count,
                                                   std::size_t count, Prng& prng) {
  std::vector<std::vector<std::byte>> sources;
  for (std::size_t i = 0; i < source_count; ++i) {
    sources.push_back(random_elements(pair.type, count, prng));
  }
  return sources;
}

// Where the operands lie: each at its own distance from a cache line; the destination is one of the
// sources or apart from all.
struct Layout {
  std::size_t misalignment;         // of the destination, in bytes
  std::size_t misalignment_source;  // of each further operand, on top
  int aliased;                      // a source, or -1; taken modulo the number of sources
};

constexpr Layout layouts[] = {{0, 0, -1}, {16, 0, -1}, {16, 0, 0},
                              {1, 3, 2},  {5, 1, -1},  {24, 8, 1}};

// Folds copies that are laid out so, and gives the result, or says that bytes around it were
// touched.
class Arena {
 public:
  Arena() : memory_((source_count_max + 1) * stride + 64) {}

  std::vector<std::byte> fold(const Target& target, const Pair& pair, const Layout& layout,
                              const std::vector<std::vector<std::byte>>& sources, std::size_t count,
                              const Scale& scale) {
    const std::size_t size = count * size_of(pair.type);
    const auto source_count = sources.size();
    const std::byte* operands[source_count_max];
    for (std::size_t i = 0; i < source_count; ++i) {
      std::byte* at = place(i + 1, layout.misalignment + (i + 1) * layout.misalignment_source);
      std::copy_n(sources[i].data(), size, at);
      operands[i] = at;
    }
    std::byte* destination = place(0, layout.misalignment);
    if (layout.aliased >= 0) {
      const auto aliased = static_cast<std::size_t>(layout.aliased) % source_count;
      std::copy_n(sources[aliased].data(), size, destination);
      operands[aliased] = destination;
    }
    std::fill_n(destination - guard, guard, mark);
    std::fill_n(destination + size, guard, mark);
    const FoldArguments arguments{
        destination, {operands, source_count}, scale.weights, scale.divisor, count};
    fold_of(target, pair)(arguments);
    const auto untouched = [](std::byte byte) { return byte == mark; };
    intact_ = intact_ && std::all_of(destination - guard, destination, untouched) &&
              std::all_of(destination + size, destination + size + guard, untouched);
    std::vector<std::byte> result(size);
    std::copy_n(destination, size, result.data());
    return result;
  }

  bool intact() const { return intact_; }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr std::size_t stride = (count_max * 8 / 64 + 8) * 64;
  static constexpr std::byte mark{0xa5};

  std::byte* place(std::size_t slot, std::size_t misalignment) {
    const auto start = reinterpret_cast<std::uintptr_t>(memory_.data());
    return memory_.data() + (64 - start % 64) + slot * stride + guard + misalignment;
  }

  std::vector<std::byte> memory_;
  bool intact_ = true;
};

std::vector<Scale> scales_of(const Pair& pair, std::size_t source_count, Prng& prng) {
  std::vector<Scale> scales{{}};
  const bool scalable = pair.op == ReduceOp::sum || pair.op == ReduceOp::avg;
  if (!is_floating(pair.type) || !scalable) return scales;
  scales.push_back({{}, 3});
  scales.push_back({{}, 4});
  scales.push_back({std::vector<double>(source_count, 1), 1});
  scales.push_back({std::vector<double>(source_count, 0), 1});
  Scale mixed{std::vector<double>(source_count), 2.7};
  for (double& weight : mixed.weights) {
    const double choices[] = {0, 1, 1.0 / 3, -0.75, 1024 + 1.0 / 7};
    weight = choices[prng.below(5)];
  }
  scales.push_back(mixed);
  return scales;
}

}  // namespace

TEST_CASE("folds: every target equals scalar, and touches nothing else") {
  Prng prng(11);
  Arena arena;
  const Target& scalar = *targets()[0];
  REQUIRE(scalar.name == "scalar");
  for (const Pair& pair : all_pairs()) {
    std::string fault;
    for (std::size_t source_count = 1; source_count <= source_count_max; ++source_count) {
      const auto sources = random_sources(pair, source_count, count_max, prng);
      for (std::size_t count : counts) {
        const auto expected = arena.fold(scalar, pair, layouts[0], sources, count, {});
        for (const Target* target : targets()) {
          for (const Layout& layout : layouts) {
            if (arena.fold(*target, pair, layout, sources, count, {}) == expected) continue;
            fault = std::string(target->name) + ", sources " + std::to_string(source_count) +
                    ", count " + std::to_string(count) + ", at " +
                    std::to_string(layout.misalignment);
          }
        }
      }
    }
    CHECK_MESSAGE(fault.empty(), text_of(pair), ": ", fault);
  }
  CHECK(arena.intact());
}

TEST_CASE("folds: scaled ones equal scalar on every target") {
  Prng prng(12);
  Arena arena;
  for (const Pair& pair : all_pairs()) {
    for (std::size_t source_count : {1, 2, 5}) {
      const auto sources = random_sources(pair, source_count, count_max, prng);
      for (const Scale& scale : scales_of(pair, source_count, prng)) {
        for (std::size_t count : {1, 65, 4099}) {
          const auto expected = arena.fold(*targets()[0], pair, layouts[0], sources, count, scale);
          for (const Target* target : targets()) {
            const auto result = arena.fold(*target, pair, layouts[2], sources, count, scale);
            CHECK_MESSAGE(result == expected, text_of(pair), " on ", std::string(target->name),
                          ", divisor ", scale.divisor);
          }
        }
      }
    }
  }
  CHECK(arena.intact());
}

TEST_CASE("folds: scalar equals the reference") {
  Prng prng(13);
  Arena arena;
  constexpr std::size_t count = 800;
  for (const Pair& pair : all_pairs()) {
    std::string fault;
    for (std::size_t source_count = 1; source_count <= source_count_max; ++source_count) {
      const auto sources = random_sources(pair, source_count, count, prng);
      for (const Scale& scale : scales_of(pair, source_count, prng)) {
        const auto result = arena.fold(*targets()[0], pair, layouts[0], sources, count, scale);
        for (std::size_t i = 0; i < count; ++i) {
          std::uint64_t bits[source_count_max];
          for (std::size_t k = 0; k < source_count; ++k) {
            bits[k] = element_at(pair.type, sources[k].data(), i);
          }
          const std::uint64_t expected =
              reference(pair.type, pair.op, {bits, source_count}, scale.weights, scale.divisor);
          if (element_at(pair.type, result.data(), i) == expected) continue;
          fault = "element " + std::to_string(i) + " of " + std::to_string(source_count) +
                  " sources, divisor " + std::to_string(scale.divisor);
        }
      }
    }
    CHECK_MESSAGE(fault.empty(), text_of(pair), ": ", fault);
  }
}

TEST_CASE("folds: a source of weight 0 contributes nothing, not even its NaN") {
  const float rotten[] = {__builtin_nanf(""), __builtin_inff(), -0.0f};
  const float sound[] = {1, -0.0f, -0.0f};
  const std::byte* sources[] = {reinterpret_cast<const std::byte*>(rotten),
                                reinterpret_cast<const std::byte*>(sound)};
  for (const Target* target : targets()) {
    float result[3] = {};
    const double weights[] = {0, 1};
    const auto fold = target->fold[PYCCL_F32][PYCCL_SUM];
    fold({reinterpret_cast<std::byte*>(result), sources, weights, 1.0, 3});
    CHECK(std::memcmp(result, sound, sizeof(result)) == 0);
  }
}

TEST_CASE("folds: neither depend on the caller's floating-point mode nor change it") {
  Prng prng(14);
  Arena arena;
  for (const Pair pair :
       {Pair{DataType::f32, ReduceOp::avg}, Pair{DataType::f64, ReduceOp::prod},
        Pair{DataType::f16, ReduceOp::sum}, Pair{DataType::bf16, ReduceOp::max}}) {
    const auto sources = random_sources(pair, 3, count_max, prng);
    const auto expected = arena.fold(*targets()[0], pair, layouts[0], sources, count_max, {});
    for (const Target* target : targets()) {
      std::fesetround(FE_UPWARD);
#if defined(__SSE__)
      constexpr unsigned flush_subnormals = 0x8040;
      _mm_setcsr(_mm_getcsr() | flush_subnormals);
#endif
      const auto result = arena.fold(*target, pair, layouts[0], sources, count_max, {});
      const int rounding = std::fegetround();
#if defined(__SSE__)
      const bool flushes = (_mm_getcsr() & flush_subnormals) == flush_subnormals;
      _mm_setcsr(_mm_getcsr() & ~flush_subnormals);
#else
      const bool flushes = true;
#endif
      std::fesetround(FE_TONEAREST);
      CHECK(rounding == FE_UPWARD);
      CHECK(flushes);
      CHECK_MESSAGE(result == expected, text_of(pair), " on ", std::string(target->name));
    }
  }
}

}  // namespace pyccl::kernels
