// Which state wins: every rule once, every refusal with the ranks it names, and reports as bytes.
#include "protocol/shared_state.hpp"

#include <doctest/doctest.h>

#include <array>
#include <string>
#include <vector>

#include "base/prng.hpp"

using namespace pyccl;
using namespace pyccl::protocol;

namespace {

constexpr auto popular = Strategy::popular;
constexpr auto send_only = Strategy::send_only;
constexpr auto receive_only = Strategy::receive_only;

// Bits are named by a number.
StateReport has(std::uint64_t revision, std::uint64_t bits, Strategy strategy = popular) {
  StateReport report;
  report.strategy = strategy;
  report.revision = revision;
  report.content = {0, bits};
  return report;
}

StateReport in_part(StateReport report) {
  report.whole = false;
  return report;
}

StateReport expecting(StateReport report, std::uint64_t revision) {
  report.expected = revision;
  return report;
}

using Reports = std::vector<StateReport>;

Result<Election> elected_of(Reports reports) {
  for (std::size_t i = 0; i < reports.size(); ++i) reports[i].peer = {0xa0 + i};
  return elect(reports);
}

struct Expected {
  std::uint64_t revision;
  std::uint64_t bits;
  std::vector<Rank> holders;
};

void check_wins(const Reports& reports, const Expected& expected) {
  const Result<Election> elected = elected_of(reports);
  REQUIRE_MESSAGE(elected.ok(), elected.status().reason());
  CHECK(elected.value().revision == expected.revision);
  CHECK(elected.value().content == Digest{0, expected.bits});
  CHECK(elected.value().holders == expected.holders);
}

void check_refused(const Reports& reports, const std::vector<std::string>& texts) {
  const Result<Election> elected = elected_of(reports);
  REQUIRE(!elected.ok());
  CHECK(elected.status().code() == Code::state_sync);
  for (const std::string& text : texts) {
    CHECK_MESSAGE(elected.status().reason().find(text) != std::string::npos,
                  elected.status().reason());
  }
}

}  // namespace

TEST_CASE("the highest revision wins, however few have it") {
  check_wins({has(3, 1), has(3, 1), has(5, 2)}, {5, 2, {2}});
  check_wins({has(0, 1)}, {0, 1, {0}});
}

TEST_CASE("of unlike states of that revision the one that most have wins") {
  check_wins({has(5, 1), has(5, 2), has(5, 2)}, {5, 2, {1, 2}});
  // Older revisions with the same bits are no votes, but may send them.
  check_wins({has(5, 1), has(4, 1), has(5, 2), has(5, 2)}, {5, 2, {2, 3}});
  check_wins({has(5, 1), has(5, 1), has(4, 1), has(5, 2)}, {5, 1, {0, 1, 2}});
}

TEST_CASE("of equals that of the lowest rank wins") {
  check_wins({has(1, 9), has(5, 2), has(5, 1), has(5, 1), has(5, 2)}, {5, 2, {1, 4}});
  check_wins({has(5, 3), has(5, 2), has(5, 1)}, {5, 3, {0}});
}

TEST_CASE("who only receives wins nothing, but counts for those who have the same") {
  check_wins({has(9, 7, receive_only), has(5, 1), has(4, 2)}, {5, 1, {1}});
  check_wins({has(5, 1), has(5, 2), has(5, 2, receive_only)}, {5, 2, {1}});
}

TEST_CASE("what is half overwritten neither wins nor counts") {
  check_wins({in_part(has(9, 7)), has(5, 1)}, {5, 1, {1}});
  check_wins({has(5, 1), has(5, 2), in_part(has(5, 2))}, {5, 1, {0}});
}

TEST_CASE("a state that is sent only wins over numbers") {
  check_wins({has(5, 1), has(5, 1), has(5, 2, send_only)}, {5, 2, {2}});
  check_wins({has(5, 2, send_only), has(5, 1), has(5, 2, send_only)}, {5, 2, {0, 2}});
  // Newer ones that nobody may send don't matter.
  check_wins({has(9, 1, receive_only), has(5, 2, send_only)}, {5, 2, {1}});
  check_wins({in_part(has(9, 1)), has(5, 2, send_only)}, {5, 2, {1}});
}

TEST_CASE("refused: nobody may send") {
  check_refused({has(5, 1, receive_only), in_part(has(5, 1))},
                {"rank 0 (peer 00000000000000a0) is receive_only",
                 "rank 1 (peer 00000000000000a1) was left half overwritten by a failed sync"});
}

TEST_CASE("refused: members that only send disagree") {
  check_refused({has(5, 1), has(5, 1, send_only), has(4, 1, send_only)},
                {"rank 1 (peer 00000000000000a1) has revision 5",
                 "rank 2 (peer 00000000000000a2) has revision 4"});
  check_refused({has(5, 1, send_only), has(5, 2, send_only)},
                {"rank 0 ", "rank 1 ", "revision 5 with other bits"});
}

TEST_CASE("refused: a newer state than that which is sent only") {
  check_refused({has(5, 1, send_only), has(6, 2), has(7, 3)},
                {"rank 0 (peer 00000000000000a0) has revision 5 and is send_only",
                 "rank 2 (peer 00000000000000a2) has revision 7 and may send it"});
}

TEST_CASE("refused: what is sent only is half overwritten") {
  check_refused({has(5, 1), in_part(has(5, 1, send_only))},
                {"rank 1 (peer 00000000000000a1) is send_only", "half overwritten"});
}

TEST_CASE("refused: another revision than the expected one") {
  check_wins({expecting(has(5, 1), 6), has(6, 2), expecting(has(6, 2), 6)}, {6, 2, {1, 2}});
  check_refused({expecting(has(5, 1), 6), has(7, 2), expecting(has(6, 2), 8)},
                {"the newest revision is 7", "rank 0 (peer 00000000000000a0) expects 6",
                 "rank 2 (peer 00000000000000a2) expects 8"});
}

TEST_CASE("a report comes out of its bytes as it went in") {
  StateReport report = expecting(has(1ull << 40, 77, send_only), 3);
  report.peer = {0x1234567890abcdefull};
  report.whole = false;
  report.schema = {5, 6};
  report.schema_bytes = 123456;
  report.content = {~0ull, 1};
  for (const bool expects : {true, false}) {
    if (!expects) report.expected.reset();
    std::array<std::byte, state_report_bytes> bytes{};
    store(bytes.data(), report);
    const Result<StateReport> loaded = load_state_report(bytes.data());
    REQUIRE(loaded.ok());
    CHECK(loaded.value() == report);
  }
}

TEST_CASE("a report of an unknown form is refused, and says whose it is") {
  std::array<std::byte, state_report_bytes> good{};
  StateReport report = has(1, 2);
  report.peer = {0xb0};
  store(good.data(), report);
  struct Change {
    std::size_t at;
    std::byte value;
  };
  // An unknown strategy, an unknown flag, and bytes that are zero in this version.
  for (const Change change :
       {Change{8, std::byte{3}}, Change{8, std::byte{255}}, Change{9, std::byte{5}},
        Change{10, std::byte{1}}, Change{11, std::byte{1}}}) {
    auto bytes = good;
    bytes[change.at] = change.value;
    const Result<StateReport> loaded = load_state_report(bytes.data());
    REQUIRE(!loaded.ok());
    CHECK(loaded.status().code() == Code::protocol_violation);
    CHECK(loaded.status().peer() == PeerId{0xb0});
  }
}

TEST_CASE("whatever bytes come as a report, they are refused or mean what is written again") {
  Prng prng(1);
  int understood = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::array<std::byte, state_report_bytes> bytes{};
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(prng.next());
    if (i % 2 == 0) {
      bytes[8] &= std::byte{3};
      bytes[9] &= std::byte{3};
      bytes[10] = bytes[11] = std::byte{0};
    }
    const Result<StateReport> loaded = load_state_report(bytes.data());
    if (!loaded.ok()) continue;
    ++understood;
    std::array<std::byte, state_report_bytes> again{};
    store(again.data(), loaded.value());
    CHECK(load_state_report(again.data()).value() == loaded.value());
  }
  CHECK(understood > 5'000);
}
