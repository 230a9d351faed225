// What becomes of open operations: every rule once.
#include "protocol/decide.hpp"

#include <doctest/doctest.h>

#include <set>

#include "protocol/codec.hpp"

using namespace pyccl;
using namespace pyccl::protocol;

namespace {

constexpr PeerId a{1};
constexpr PeerId b{2};
constexpr PeerId c{3};
const GroupId group = group_id("default");
const OpKey op{group, 0, 4};

View three() {
  View view;
  view.epoch = {1, 1};
  for (PeerId peer : {a, b, c}) view.members.push_back({peer, "default", Role::worker, {}});
  return view;
}

OperationReport with(OperationState state, bool hint = false, Status status = {},
                     OnLoss on_loss = OnLoss::retry) {
  return {op, state, hint, on_loss, {}, std::move(status)};
}

Report of(std::vector<OperationReport> operations, std::uint32_t next = 5) {
  return {{1, 1}, std::move(operations), {{group, 0, next}}, {}, {}};
}

const OperationReport posted = with(OperationState::posted);
const OperationReport whole = with(OperationState::whole);

}  // namespace

TEST_CASE("committed by anyone is committed, with the hint that it saw") {
  const Verdict verdict = decide(
      three(),
      {{a, of({with(OperationState::committed, true)})}, {b, of({whole})}, {c, of({whole})}}, {});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0] == Decision{op, Outcome::committed, true, {}});
  CHECK(!verdict.restarts);
}

TEST_CASE("who committed so long ago that it forgot still counts; the hint is that of the others") {
  const Verdict verdict = decide(
      three(), {{a, of({}, 5)}, {b, of({with(OperationState::whole, true)})}}, {{c, "died"}});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0] == Decision{op, Outcome::committed, true, {}});
}

TEST_CASE("whole at every survivor is committed, with any of their hints") {
  const Verdict verdict = decide(
      three(), {{a, of({whole})}, {b, of({with(OperationState::whole, true)})}}, {{c, "died"}});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0] == Decision{op, Outcome::committed, true, {}});
}

TEST_CASE("not whole at one survivor restarts, and what all have committed is not named") {
  const Verdict verdict = decide(three(), {{a, of({whole})}, {b, of({posted})}}, {{c, "died"}});
  CHECK(verdict.decisions.empty());
  CHECK(verdict.restarts);
  const auto committed = of({with(OperationState::committed)});
  CHECK(decide(three(), {{a, committed}, {b, committed}, {c, committed}}, {}).decisions.empty());
}

TEST_CASE("not posted by a survivor restarts") {
  const Verdict verdict = decide(three(), {{a, of({whole})}, {b, of({}, 4)}}, {{c, "died"}});
  CHECK(verdict.restarts);
}

TEST_CASE("refused fails with the status of the lowest rank") {
  const Status first(Code::mismatch, "b says");
  const Status second(Code::timeout, "c says");
  const Verdict verdict = decide(three(),
                                 {{a, of({posted})},
                                  {b, of({with(OperationState::posted, false, first)})},
                                  {c, of({with(OperationState::whole, false, second)})}},
                                 {});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0] == Decision{op, Outcome::failed, false, first});
}

TEST_CASE("whole everywhere wins over a deadline that passed after Done") {
  const Status late(Code::timeout, "late");
  const Verdict verdict =
      decide(three(), {{a, of({with(OperationState::whole, false, late)})}, {b, of({whole})}},
             {{c, "left"}});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0].outcome == Outcome::committed);
}

TEST_CASE("cancelled by the only one who knows of it is withdrawn") {
  const Status cancelled(Code::cancelled, "given up");
  const auto report = of({with(OperationState::posted, false, cancelled)});
  Verdict verdict = decide(three(), {{a, report}, {b, of({}, 4)}, {c, of({}, 4)}}, {});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0].outcome == Outcome::withdrawn);
  CHECK(verdict.decisions[0].status.peer() == a);
  // Another has posted it too.
  verdict = decide(three(), {{a, report}, {b, of({posted})}, {c, of({}, 4)}}, {});
  CHECK(verdict.decisions[0].outcome == Outcome::failed);
  // Its caller has posted a later number.
  auto later = report;
  later.next_sequences[0].seq = 6;
  verdict = decide(three(), {{a, later}, {b, of({}, 4)}, {c, of({}, 4)}}, {});
  CHECK(verdict.decisions[0].outcome == Outcome::failed);
}

TEST_CASE("a lost member fails what was not to be retried, and names it") {
  const auto raise = with(OperationState::posted, false, {}, OnLoss::raise);
  const Verdict verdict =
      decide(three(), {{a, of({raise})}, {b, of({}, 4)}}, {{c, "died: refused"}});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0].status.code() == Code::peer_lost);
  CHECK(verdict.decisions[0].status.peer() == c);
  CHECK(verdict.decisions[0].status.reason().find("rank 2") != std::string::npos);
  const auto alone = decide(three(), {{a, of({raise})}, {b, of({}, 4)}, {c, of({}, 4)}}, {});
  CHECK(alone.restarts);
}

TEST_CASE("groups decide apart") {
  View view = three();
  view.members[2].group = "other";
  const OpKey foreign{group_id("other"), 0, 0};
  Report report{
      {1, 1}, {{foreign, OperationState::whole, false, OnLoss::retry, {}, {}}}, {}, {}, {}};
  const Verdict verdict = decide(view, {{a, of({posted})}, {c, report}}, {{b, "died"}});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0].op == foreign);
  CHECK(verdict.restarts);
}

TEST_CASE("a lost root fails the operation, whatever on_loss says, unless it is committed") {
  auto rooted = posted;
  rooted.root = c;
  const Verdict verdict =
      decide(three(), {{a, of({rooted})}, {b, of({}, 4)}}, {{c, "died: refused"}});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0].outcome == Outcome::failed);
  CHECK(verdict.decisions[0].status.code() == Code::peer_lost);
  CHECK(verdict.decisions[0].status.peer() == c);
  CHECK(decide(three(), {{a, of({rooted})}, {c, of({rooted})}}, {{b, "died"}}).restarts);
  auto finished = whole;
  finished.root = c;
  const auto done = of({finished});
  CHECK(decide(three(), {{a, done}, {b, done}}, {{c, "died"}}).decisions[0].outcome ==
        Outcome::committed);
}

namespace {

const GroupId pair = subgroup_id(group, std::vector<PeerId>{b, a}, "");
const OpKey pair_op{pair, 0, 0};

// Of a member of the subgroup of b and a.
Report pair_report(OperationState state, Status status = {}) {
  return {{1, 1},
          {{pair_op, state, false, OnLoss::retry, {}, std::move(status)}},
          {{pair, 0, 1}},
          {},
          {{pair, {1, 0}}}};
}

}  // namespace

TEST_CASE("a subgroup decides for itself; only its members vote") {
  const Verdict verdict = decide(three(),
                                 {{a, pair_report(OperationState::whole)},
                                  {b, pair_report(OperationState::whole)},
                                  {c, of({}, 0)}},
                                 {});
  REQUIRE(verdict.decisions.size() == 1);
  CHECK(verdict.decisions[0] == Decision{pair_op, Outcome::committed, false, {}});
  CHECK(verdict.subgroups == Subgroups{{pair, {b, a}}});
  for (const NextSequence& next : verdict.next_sequences) CHECK(next.group == group);
  const Status late(Code::timeout, "late");
  const Verdict refused =
      decide(three(),
             {{a, pair_report(OperationState::posted, late)}, {b, of({}, 0)}, {c, of({}, 0)}}, {});
  REQUIRE(refused.decisions.size() == 1);
  CHECK(refused.decisions[0] == Decision{pair_op, Outcome::failed, false, late});
}

TEST_CASE("a subgroup without one of its members ends, but for what is committed") {
  const Verdict ended =
      decide(three(), {{a, pair_report(OperationState::posted)}, {c, of({}, 0)}}, {{b, "died"}});
  CHECK(ended.decisions.empty());
  CHECK(!ended.restarts);
  const Status late(Code::timeout, "late");
  CHECK(decide(three(), {{a, pair_report(OperationState::posted, late)}, {c, of({}, 0)}},
               {{b, "died"}})
            .decisions.empty());
  const Verdict committed =
      decide(three(), {{a, pair_report(OperationState::whole)}, {c, of({}, 0)}}, {{b, "died"}});
  REQUIRE(committed.decisions.size() == 1);
  CHECK(committed.decisions[0].outcome == Outcome::committed);
}

TEST_CASE("the loss of a stranger starts a subgroup's operation again") {
  const Verdict verdict = decide(
      three(), {{a, pair_report(OperationState::whole)}, {b, pair_report(OperationState::posted)}},
      {{c, "died"}});
  CHECK(verdict.decisions.empty());
  CHECK(verdict.restarts);
}

TEST_CASE("claims about subgroups that can't be harm nobody") {
  Report liar = pair_report(OperationState::whole);
  for (const std::vector<std::uint8_t>& places :
       std::vector<std::vector<std::uint8_t>>{{}, {0, 0}, {0, 200}, {1, 2}, {0, 2}}) {
    liar.subgroups[0].places = places;
    const Verdict verdict = decide(
        three(), {{a, liar}, {b, pair_report(OperationState::posted)}, {c, of({posted})}}, {});
    CHECK(verdict.decisions.size() <= 1);
  }
  liar.subgroups[0] = {group, {0}};
  CHECK(decide(three(), {{a, liar}, {b, of({posted})}, {c, of({posted})}}, {}).restarts);
  View two_groups = three();
  two_groups.members[1].group = "else";
  CHECK(decide(two_groups, {{a, pair_report(OperationState::whole)}, {c, of({posted})}},
               {{b, "died"}})
            .decisions.empty());
}

TEST_CASE("each member's view has room for itself") {
  // 40 members in pairs: together they have far more to decide than one view could hold.
  View view;
  view.epoch = {1, 1};
  std::map<PeerId, Report> reports;
  for (std::uint64_t peer = 0; peer < 40; ++peer) {
    view.members.push_back({{peer + 1}, "default", Role::worker, {}});
    const auto first = static_cast<std::uint8_t>(peer / 2 * 2);
    const auto second = static_cast<std::uint8_t>(first + 1);
    Report& report = reports[{peer + 1}];
    report.epoch = {1, 1};
    const GroupId id{(std::uint64_t{first} + 1) << 32};
    report.subgroups = {{id, {first, second}}};
    for (std::uint32_t seq = 0; seq < operations_open_max; ++seq) {
      report.operations.push_back(
          {{id, 0, seq}, OperationState::whole, false, OnLoss::retry, {}, {}});
    }
  }
  const Verdict verdict = decide(view, reports, {});
  CHECK(!verdict.too_much);
  CHECK(verdict.decisions.size() == 20 * operations_open_max);
  CHECK(verdict.subgroups.size() == 20);
}

TEST_CASE("a joiner begins behind everything, also behind failures that nobody here has posted") {
  Report behind = of({}, 5);
  behind.behind_failures = {{group, 0, 9}, {group, 6, 1}};
  const Verdict verdict = decide(three(), {{a, of({}, 7)}, {b, behind}, {c, of({}, 5)}}, {});
  const std::vector<NextSequence> expected = {{group, 0, 9}, {group, 6, 1}};
  CHECK(verdict.next_sequences == expected);
}

namespace {

// Members 1 to `count`, each of which reports as many operations as may be open, in a tag of its
// own.
struct Crowd {
  Crowd(std::uint64_t count, const OperationReport& like) {
    view.epoch = {1, 1};
    for (std::uint64_t peer = 1; peer <= count; ++peer) {
      view.members.push_back({{peer}, "default", Role::worker, {}});
      Report& report = reports[{peer}];
      report.epoch = {1, 1};
      for (std::uint32_t seq = 0; seq < operations_open_max; ++seq) {
        report.operations.push_back(like);
        report.operations.back().op = {group, static_cast<std::uint32_t>(peer), seq};
      }
    }
  }
  View view;
  std::map<PeerId, Report> reports;
};

bool fits(View view, const Verdict& verdict) {
  view.decisions = verdict.decisions;
  view.next_sequences = verdict.next_sequences;
  return decode(encode(view)).ok();
}

}  // namespace

TEST_CASE("refused operations that do not fit into a view are decided by the next ones") {
  const Status late(Code::timeout, std::string(operation_reason_bytes_max, 'r'));
  Crowd crowd(8, with(OperationState::posted, false, late));
  std::size_t decided = 0;
  for (int views = 1;; ++views) {
    REQUIRE(views < 10);
    const Verdict verdict = decide(crowd.view, crowd.reports, {});
    CHECK(fits(crowd.view, verdict));
    REQUIRE(!verdict.decisions.empty());
    decided += verdict.decisions.size();
    std::set<OpKey> over;
    for (const Decision& decision : verdict.decisions) over.insert(decision.op);
    for (auto& [peer, report] : crowd.reports) {
      std::erase_if(report.operations, [&](const auto& one) { return over.contains(one.op); });
    }
    if (!verdict.restarts) break;
  }
  CHECK(decided == 8 * operations_open_max);
}

TEST_CASE("each view decides one refused operation, however little room there is") {
  Crowd crowd(2, with(OperationState::posted, false, Status(Code::timeout, "late")));
  const Verdict verdict = decide(crowd.view, crowd.reports, {}, 0);
  CHECK(verdict.decisions.size() == 1);
  CHECK(verdict.restarts);
}

TEST_CASE("what is certain is decided however little room there is") {
  const auto raise = with(OperationState::posted, false, {}, OnLoss::raise);
  Crowd crowd(4, raise);
  const std::string loss(1000, 'x');
  crowd.view.members.push_back({{99}, "default", Role::worker, {}});
  const Verdict verdict = decide(crowd.view, crowd.reports, {{{99}, loss}}, 1000);
  CHECK(verdict.decisions.size() == 4 * operations_open_max);
  CHECK(!verdict.restarts);
  CHECK(verdict.decisions.front().status.reason() == "a member was lost");
  CHECK(fits(crowd.view, decide(crowd.view, crowd.reports, {{{99}, loss}})));
  CHECK(decide(three(), {{a, of({with(OperationState::committed)})}, {b, of({whole})}}, {}, 0)
            .decisions.size() == 1);
}

TEST_CASE("more that is certain than a view can hold names the member with the most of it") {
  Crowd crowd(40, with(OperationState::whole));
  // Everybody else has committed it.
  for (auto& [peer, report] : crowd.reports) {
    for (std::uint32_t tag = 1; tag <= 40; ++tag) {
      report.next_sequences.push_back({group, tag, operations_open_max});
    }
  }
  crowd.reports.at({7}).operations.push_back(posted);
  CHECK(decide(crowd.view, crowd.reports, {}).too_much == PeerId{7});
}
