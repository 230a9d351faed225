// The small parts: view, round, fault detector, remembered failures.
#include <doctest/doctest.h>

#include "protocol/failures.hpp"
#include "protocol/fault_detector.hpp"
#include "protocol/round.hpp"
#include "protocol/view.hpp"

using namespace pyccl;
using namespace pyccl::protocol;

TEST_CASE("ranks count within the own group") {
  View view;
  view.members = {
      {{1}, "a", Role::worker, {}}, {{2}, "b", Role::worker, {}}, {{3}, "a", Role::worker, {}}};
  CHECK(view.rank_of({1}) == 0);
  CHECK(view.rank_of({2}) == 0);
  CHECK(view.rank_of({3}) == 1);
  CHECK(view.rank_of({4}) == std::nullopt);
  CHECK(view.find({4}) == nullptr);
  CHECK(view.find({2})->group == "b");
  CHECK(view.group_members(group_id("a")) == std::vector<PeerId>{{1}, {3}});
  CHECK(view.group_members(group_id("c")).empty());
}

TEST_CASE("subgroups travel as places") {
  View view;
  view.members = {
      {{5}, "a", Role::worker, {}}, {{6}, "a", Role::worker, {}}, {{7}, "a", Role::worker, {}}};
  const GroupId id{std::uint64_t{1} << 32};
  const auto travelling = view.subgroups_of({{id, {{7}, {9}, {5}}}});
  CHECK(travelling == std::vector<Subgroup>{{id, {2, 0}}});
  CHECK(view.peers_of(travelling[0]) == std::vector<PeerId>{{7}, {5}});
  CHECK(view.peers_of({id, {0, 0}}).empty());
  CHECK(view.peers_of({id, {3}}).empty());
}

TEST_CASE("a round ends when every voter has answered") {
  Round<int> round;
  CHECK(!round.complete());
  round.begin({{1}, {2}, {3}});
  CHECK(round.answer({1}, 10));
  CHECK(!round.answer({9}, 10));
  CHECK(round.answer({2}, 20));
  CHECK(!round.complete());
  round.excuse({3});
  CHECK(round.complete());
  round.expect({3});
  CHECK(!round.complete());
  CHECK(round.answer({3}, 30));
  CHECK(round.complete());
  round.withdraw({1});
  CHECK(!round.complete());
  CHECK(round.answers().size() == 2);
}

TEST_CASE(
    "refused is death at once, a broken connection after its grace, silence after the limit") {
  const Timing timing;
  const Time start{1'000'000'000};
  FaultDetector detector(start);
  CHECK(!detector.death(start + 3s, timing));
  CHECK(detector.death(start + 4s, timing) == "silent for 4.0 s");
  detector.heard(start + 3s);
  CHECK(!detector.death(start + 6s, timing));

  detector.disconnected(start + 6s);
  detector.probed(ProbeResult::reachable);
  detector.heard(start + 7s);
  CHECK(detector.next_deadline(timing) == start + 8s);
  CHECK(!detector.death(start + 7s, timing));
  CHECK(detector.death(start + 8s, timing).has_value());
  detector.forgive(1s);
  CHECK(!detector.death(start + 8s, timing));

  detector.connected(start + 8s);
  CHECK(!detector.death(start + 8s, timing));
  detector.probed(ProbeResult::unreachable);
  CHECK(!detector.death(start + 8s, timing));
  detector.probed(ProbeResult::refused);
  CHECK(detector.death(start + 8s, timing) == "connection refused");
}

TEST_CASE("failures are remembered with their reason, and the oldest without") {
  Failures failures;
  const GroupId group{1};
  const auto key = [&](std::uint32_t seq) { return OpKey{group, 3, seq}; };
  for (std::uint32_t seq = 0; seq < operations_open_max + 100; ++seq) {
    if (seq != 50) failures.add(key(seq), {Code::mismatch, "differ"});
  }
  CHECK(failures.reason_count() == operations_open_max);
  CHECK(failures.ends(group) == std::vector<NextSequence>{{group, 3, operations_open_max + 100}});
  CHECK(failures.take(key(0))->code() == Code::timeout);
  CHECK(failures.take(key(49))->code() == Code::timeout);
  CHECK(!failures.take(key(50)));
  CHECK(failures.take(key(51))->code() == Code::timeout);
  CHECK(failures.take(key(500))->code() == Code::mismatch);
  CHECK(!failures.take(key(500)));
  CHECK(!failures.take({group, 4, 0}));
  CHECK(failures.ends({2}).empty());
  failures.add({{2}, 3, 7}, {Code::mismatch, "differ"});
  failures.add({{2}, 4, 7}, {Code::mismatch, "differ"});
  CHECK(failures.ends(group).size() == 1);
  failures.drop({2});
  CHECK(!failures.take({{2}, 3, 7}));
  failures.drop_below({group, 3, 2000});
  CHECK(failures.ends(group).empty());
  CHECK(failures.reason_count() == 0);
}
