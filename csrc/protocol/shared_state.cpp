// Reports as bytes, and the election; see shared_state.hpp.
#include "protocol/shared_state.hpp"

#include <algorithm>

#include "base/mark.hpp"

namespace pyccl::protocol {
namespace {

constexpr std::byte flag_whole{1};
constexpr std::byte flag_expects{2};

// peer 8, strategy 1, flags 1, zero 2, bytes of the schema 4, revision 8, expected 8, schema 16,
// content 16
static_assert(state_report_bytes == 8 + 1 + 1 + 2 + 4 + 8 + 8 + 2 * digest_bytes);

using Reports = std::span<const StateReport>;

bool same_state(const StateReport& a, const StateReport& b) {
  return a.revision == b.revision && a.content == b.content;
}

bool may_send(const StateReport& report) {
  if (PYCCL_MUTANT("void-state-elected")) return report.strategy != Strategy::receive_only;
  return report.strategy != Strategy::receive_only && report.whole;
}

Status refuse(std::string why) { return {Code::state_sync, std::move(why)}; }

std::string revision_of(Reports reports, Rank rank) {
  return name_of(reports, rank) + " has revision " +
         std::to_string(reports[static_cast<std::size_t>(rank)].revision);
}

Status nobody_sends(Reports reports) {
  std::string why;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    why += (i == 0 ? "" : ", ") + name_of(reports, static_cast<Rank>(i)) +
           (reports[i].whole ? " is receive_only" : " was left half overwritten by a failed sync");
  }
  return refuse("no member has a state that it may send: " + why +
                ". One of them must have a whole state and another strategy than receive_only");
}

// Ok if there is none, or all of them have the same.
Status check_send_only(Reports reports, std::optional<Rank>& only) {
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const auto rank = static_cast<Rank>(i);
    if (reports[i].strategy != Strategy::send_only) continue;
    if (!may_send(reports[i])) {
      return refuse(name_of(reports, rank) +
                    " is send_only, but its state was left half overwritten by a failed sync: "
                    "load it again and set its revision");
    }
    if (!only) only = rank;
    if (same_state(reports[i], reports[static_cast<std::size_t>(*only)])) continue;
    PYCCL_MARK("send_only states in conflict");
    return refuse("members that are send_only have different states: " +
                  revision_of(reports, *only) + ", " + revision_of(reports, rank) +
                  (reports[i].revision == reports[static_cast<std::size_t>(*only)].revision
                       ? " with other bits"
                       : "") +
                  ". Only one state can win: make the others popular or receive_only");
  }
  return {};
}

// How many have what this member has, whether they may send it or not.
std::ptrdiff_t holders_of(Reports reports, const StateReport& state) {
  return std::ranges::count_if(
      reports, [&](const StateReport& each) { return each.whole && same_state(each, state); });
}

Status check_expected(Reports reports, std::uint64_t revision) {
  std::string why;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const StateReport& report = reports[i];
    if (!report.expected || *report.expected == revision) continue;
    why += (why.empty() ? "" : ", ") + name_of(reports, static_cast<Rank>(i)) + " expects " +
           std::to_string(*report.expected);
  }
  if (why.empty()) return {};
  PYCCL_MARK("another revision than the expected one");
  return refuse("the newest revision is " + std::to_string(revision) + ", but " + why +
                ": each sync must go one revision on from the one before (expect_next)");
}

}  // namespace

void store(std::byte* at, const StateReport& report) {
  store_little(at, report.peer.value);
  at[8] = static_cast<std::byte>(report.strategy);
  at[9] =
      (report.whole ? flag_whole : std::byte{0}) | (report.expected ? flag_expects : std::byte{0});
  store_little(at + 10, std::uint16_t{0});
  store_little(at + 12, report.schema_bytes);
  store_little(at + 16, report.revision);
  store_little(at + 24, report.expected.value_or(0));
  store(at + 32, report.schema);
  store(at + 48, report.content);
}

Result<StateReport> load_state_report(const std::byte* at) {
  StateReport report;
  report.peer = {load_little<std::uint64_t>(at)};
  const auto strategy = std::to_integer<std::uint8_t>(at[8]);
  const bool known = (at[9] & ~(flag_whole | flag_expects)) == std::byte{0} &&
                     load_little<std::uint16_t>(at + 10) == 0;
  if (strategy >= PYCCL_STRATEGY_COUNT || !known) {
    return Status(Code::protocol_violation,
                  "peer " + to_string(report.peer) +
                      " reports its state in a form that this version does not know",
                  report.peer);
  }
  report.strategy = static_cast<Strategy>(strategy);
  report.whole = (at[9] & flag_whole) != std::byte{0};
  report.schema_bytes = load_little<std::uint32_t>(at + 12);
  report.revision = load_little<std::uint64_t>(at + 16);
  const auto expected = load_little<std::uint64_t>(at + 24);
  if ((at[9] & flag_expects) != std::byte{0}) report.expected = expected;
  report.schema = load_digest(at + 32);
  report.content = load_digest(at + 48);
  return report;
}

Result<Election> elect(Reports reports) {
  std::optional<Rank> chosen;
  if (Status status = check_send_only(reports, chosen); !status.ok()) return status;
  std::optional<Rank> newest;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    if (!may_send(reports[i])) continue;
    if (!newest || reports[i].revision > reports[static_cast<std::size_t>(*newest)].revision) {
      newest = static_cast<Rank>(i);
    }
  }
  if (!newest) return nobody_sends(reports);
  const std::uint64_t revision = reports[static_cast<std::size_t>(*newest)].revision;
  if (chosen && reports[static_cast<std::size_t>(*chosen)].revision < revision &&
      !PYCCL_MUTANT("send-only-is-overwritten")) {
    return refuse(revision_of(reports, *chosen) + " and is send_only, but " +
                  revision_of(reports, *newest) +
                  " and may send it. To go back to the former, the latter must be receive_only");
  }
  for (std::size_t i = 0; i < reports.size() && !chosen; ++i) {
    if (may_send(reports[i]) && reports[i].revision == revision) chosen = static_cast<Rank>(i);
  }
  // Only where nobody is send_only is there a choice.
  const bool open = reports[static_cast<std::size_t>(*chosen)].strategy != Strategy::send_only;
  for (std::size_t i = 0; i < reports.size() && open; ++i) {
    const StateReport& best = reports[static_cast<std::size_t>(*chosen)];
    const bool votes = may_send(reports[i]) && reports[i].revision == revision;
    if (!votes || holders_of(reports, reports[i]) <= holders_of(reports, best)) continue;
    PYCCL_MARK("the state that most members have");
    chosen = static_cast<Rank>(i);
  }
  if (Status status = check_expected(reports, revision); !status.ok()) return status;
  Election election{revision, reports[static_cast<std::size_t>(*chosen)].content, {}};
  for (std::size_t i = 0; i < reports.size(); ++i) {
    if (may_send(reports[i]) && reports[i].content == election.content) {
      election.holders.push_back(static_cast<Rank>(i));
    }
  }
  return election;
}

std::string name_of(Reports reports, Rank rank) {
  return "rank " + std::to_string(rank) + " (peer " +
         to_string(reports[static_cast<std::size_t>(rank)].peer) + ")";
}

}  // namespace pyccl::protocol
