// Who sends which block to whom: a plan is fair and complete, and the same wherever it is made.
#include "protocol/block_moves.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "base/prng.hpp"

using namespace pyccl;
using namespace pyccl::protocol;

namespace {

constexpr std::uint64_t no_bound = ~std::uint64_t{0};

using Sizes = std::vector<std::uint32_t>;
using Standings = std::vector<Standing>;

// The first `holders` ranks have all blocks, the others none; all ways carry the same.
Standings standings_of(std::size_t ranks, std::size_t holders, std::size_t blocks) {
  Standings standings;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    standings.push_back(
        {std::vector<bool>(blocks, rank >= holders), true, std::vector<std::uint32_t>(ranks, 100)});
  }
  return standings;
}

std::size_t lacking(const Standings& standings) {
  std::size_t count = 0;
  for (const Standing& each : standings) {
    count += static_cast<std::size_t>(std::ranges::count(each.lacks, true));
  }
  return count;
}

// What no pass may do; then it is done.
void carry_out(Standings& standings, const std::vector<Move>& moves) {
  std::set<std::pair<std::uint32_t, Rank>> sent;
  for (const Move& move : moves) {
    const Standing& from = standings[static_cast<std::size_t>(move.from)];
    CHECK(from.sends);
    CHECK(!from.lacks[move.block]);
    CHECK(standings[static_cast<std::size_t>(move.to)].lacks[move.block]);
    const bool first = sent.emplace(move.block, move.from).second;
    CHECK_MESSAGE(first, "a block twice from one rank");
  }
  for (const Move& move : moves) {
    auto lacks = standings[static_cast<std::size_t>(move.to)].lacks[move.block];
    CHECK(lacks);  // false: somebody else has sent it in the same pass
    lacks = false;
  }
}

std::map<Rank, std::uint64_t> bytes_by(Rank Move::* end, const std::vector<Move>& moves,
                                       const Sizes& sizes) {
  std::map<Rank, std::uint64_t> bytes;
  for (const Move& move : moves) bytes[move.*end] += sizes[move.block];
  return bytes;
}

struct Case {
  Standings standings;
  Sizes sizes;
};

// Somebody has every block.
Case draw(Prng& prng) {
  Case drawn;
  const std::size_t ranks = prng.between(2, 8);
  drawn.sizes.resize(prng.between(1, 40));
  for (std::uint32_t& size : drawn.sizes) {
    size = static_cast<std::uint32_t>(prng.chance(3, 4) ? 64 : prng.between(1, 64));
  }
  const std::size_t keeper = prng.below(ranks);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    Standing standing;
    const std::uint64_t percent = prng.below(101);
    for (std::size_t i = 0; i < drawn.sizes.size(); ++i) {
      standing.lacks.push_back(rank != keeper && prng.below(100) < percent);
    }
    standing.sends = rank == keeper || prng.chance(3, 4);
    for (std::size_t to = 0; to < ranks; ++to) {
      const auto rate = static_cast<std::uint32_t>(prng.between(1, 4000));
      standing.mb_per_s.push_back(prng.chance(1, 4) ? 0 : rate);
    }
    drawn.standings.push_back(std::move(standing));
  }
  return drawn;
}

}  // namespace

TEST_CASE("whatever is lacking comes once to everybody who lacks it, in a few passes") {
  Prng prng(2);
  for (int i = 0; i < 500; ++i) {
    auto [standings, sizes] = draw(prng);
    const std::size_t wanted = lacking(standings);
    std::uint64_t bound = prng.between(1, 600);
    std::size_t moved = 0;
    int passes = 0;
    for (; lacking(standings) > 0 && passes < 100; ++passes) {
      const auto moves = plan_moves(standings, sizes, bound);
      REQUIRE(!moves.empty());
      carry_out(standings, moves);
      moved += moves.size();
      bound *= 2;
    }
    CHECK(lacking(standings) == 0);
    CHECK(moved == wanted);
    CHECK(passes <= 20);
  }
}

TEST_CASE("nobody receives more than the bound and one block") {
  Prng prng(3);
  for (int i = 0; i < 200; ++i) {
    const auto [standings, sizes] = draw(prng);
    const std::uint64_t bound = prng.between(1, 600);
    for (const auto& [rank, bytes] :
         bytes_by(&Move::to, plan_moves(standings, sizes, bound), sizes)) {
      CHECK(bytes < bound + *std::ranges::max_element(sizes));
    }
  }
}

TEST_CASE("the same standings make the same plan") {
  Prng prng(4);
  for (int i = 0; i < 100; ++i) {
    const auto [standings, sizes] = draw(prng);
    const auto copy = standings;
    CHECK(plan_moves(standings, sizes, 500) == plan_moves(copy, sizes, 500));
  }
}

TEST_CASE("nothing to move: nobody lacks it, or nobody may send it") {
  const Sizes sizes(5, 100);
  CHECK(plan_moves(standings_of(4, 4, 5), sizes, no_bound).empty());
  CHECK(plan_moves(standings_of(4, 0, 5), sizes, no_bound).empty());
  Standings standings = standings_of(4, 2, 5);
  standings[0].sends = standings[1].sends = false;
  CHECK(plan_moves(standings, sizes, no_bound).empty());
  CHECK(plan_moves(standings_of(4, 2, 0), {}, no_bound).empty());
}

TEST_CASE("who lacks some blocks sends the others") {
  Standings standings = standings_of(2, 0, 2);
  standings[0].lacks = {true, false};
  standings[1].lacks = {false, true};
  const std::vector<Move> both = {{0, 1, 0}, {1, 0, 1}};
  CHECK(plan_moves(standings, Sizes(2, 100), no_bound) == both);
}

TEST_CASE("holders share the work equally where nothing is known of their ways") {
  Standings standings = standings_of(4, 3, 300);
  for (Standing& each : standings) each.mb_per_s.clear();
  const Sizes sizes(300, 1000);
  for (const auto& [rank, bytes] :
       bytes_by(&Move::from, plan_moves(standings, sizes, no_bound), sizes)) {
    CHECK(bytes == 100'000);
  }
}

TEST_CASE("holders share the work in proportion to what their ways carry") {
  Standings standings = standings_of(4, 3, 700);
  standings[0].mb_per_s[3] = 100;
  standings[1].mb_per_s[3] = 200;
  standings[2].mb_per_s[3] = 400;
  const Sizes sizes(700, 1 << 20);
  auto bytes = bytes_by(&Move::from, plan_moves(standings, sizes, no_bound), sizes);
  CHECK((bytes[0] >> 20) == doctest::Approx(100).epsilon(0.03));
  CHECK((bytes[1] >> 20) == doctest::Approx(200).epsilon(0.03));
  CHECK((bytes[2] >> 20) == doctest::Approx(400).epsilon(0.03));
}

TEST_CASE("a way that nobody has measured is taken to be like the others") {
  Standings standings = standings_of(3, 2, 200);
  standings[1].mb_per_s[2] = 0;
  const Sizes sizes(200, 1 << 20);
  auto bytes = bytes_by(&Move::from, plan_moves(standings, sizes, no_bound), sizes);
  CHECK(bytes[0] == bytes[1]);
}

TEST_CASE("each pass doubles those who have a block") {
  // One of eight has all. What it sends first goes to different ranks, so these can go on.
  Standings standings = standings_of(8, 1, 56);
  const Sizes sizes(56, 1000);
  for (const std::size_t wanted : {2, 4, 8}) {
    carry_out(standings, plan_moves(standings, sizes, no_bound));
    for (std::size_t block = 0; block < sizes.size(); ++block) {
      const auto have = std::ranges::count_if(
          standings, [block](const Standing& each) { return !each.lacks[block]; });
      CHECK(static_cast<std::size_t>(have) == wanted);
    }
  }
  CHECK(lacking(standings) == 0);
}

TEST_CASE("what one rank sends is spread over all who lack it") {
  const Sizes sizes(70, 1000);
  auto bytes = bytes_by(&Move::to, plan_moves(standings_of(8, 1, 70), sizes, no_bound), sizes);
  CHECK(bytes.size() == 7);
  for (const auto& [rank, received] : bytes) CHECK(received == 10'000);
}

TEST_CASE("a pass is cut into pieces in which nobody receives more than the bound, or one block") {
  Prng prng(5);
  for (int i = 0; i < 300; ++i) {
    const auto [standings, sizes] = draw(prng);
    const auto moves = plan_moves(standings, sizes, no_bound);
    const std::uint64_t bound = prng.between(1, 300);
    std::vector<Move> again;
    for (const std::span<const Move> piece : cut(moves, sizes, bound)) {
      CHECK(!piece.empty());
      const std::vector<Move> part(piece.begin(), piece.end());
      std::map<Rank, int> count;
      for (const Move& move : part) ++count[move.to];
      for (const auto& [rank, bytes] : bytes_by(&Move::to, part, sizes)) {
        CHECK((bytes <= bound || count[rank] == 1));
      }
      again.insert(again.end(), part.begin(), part.end());
    }
    CHECK(again == moves);
  }
  CHECK(cut({}, {}, 100).empty());
}
