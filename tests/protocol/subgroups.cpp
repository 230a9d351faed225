// Operations of subgroups, with a root, and with amounts by pair: what one member makes of them.
#include <doctest/doctest.h>

#include "protocol/by_hand.hpp"

using namespace pyccl;
using namespace pyccl::protocol;
using namespace pyccl::protocol::test;

namespace {

constexpr PeerId third{3};
const std::vector<PeerId> everybody = {me, other, third};
const std::vector<PeerId> pair = {other, me};  // this member is rank 1

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The next view without the third member, or without the other.
View without(PeerId gone) {
  View view = view_of(everybody, {1, 2}, {1, 1});
  view.kind = ViewKind::loss;
  view.reason = "somebody died";
  std::erase_if(view.members, [&](const MemberInfo& member) { return member.peer == gone; });
  return view;
}

Call uneven(std::vector<std::uint64_t> gives, std::vector<std::uint64_t> takes) {
  Call one = call(0, floats(0));
  one.descriptor.kind = Collective::all_to_all;
  one.descriptor.uneven = true;
  one.gives = std::move(gives);
  one.takes = std::move(takes);
  return one;
}

Descriptor rooted(Rank root, PeerId peer) {
  Descriptor descriptor = floats(8);
  descriptor.kind = Collective::broadcast;
  descriptor.root = root;
  descriptor.root_peer = peer;
  return descriptor;
}

}  // namespace

TEST_CASE("a subgroup's id tells its group, its members, their order and its name") {
  const std::vector<PeerId> turned = {me, other};
  const GroupId id = subgroup_id(group, pair, "");
  CHECK(id == subgroup_id(group, pair, ""));
  CHECK(id != subgroup_id(group, turned, ""));
  CHECK(id != subgroup_id(group, everybody, ""));
  CHECK(id != subgroup_id(group, pair, "a"));
  CHECK(id != subgroup_id(group_id("else"), pair, ""));
  CHECK(subgroup_id(group, pair, "ab") != subgroup_id(group, pair, "ba"));
  CHECK(is_subgroup(id));
  CHECK(!is_subgroup(group));
  CHECK(to_string(OpKey{id, 1, 2}).starts_with("tag 1 #2 of subgroup "));
}

TEST_CASE("an operation of a subgroup is between its members and has numbers of its own") {
  Member member = member_in(view_of(everybody, {1, 1}));
  member.receive(now, Pending{1});
  REQUIRE(member.post(now, call(0, floats(8))).value().seq == 0);
  REQUIRE(member.post(now, call(0, floats(8))).value().seq == 1);
  member.outbox.clear();
  const OpKey key = member.post(now, call_of(pair, 0, floats(8))).value();
  CHECK(key == OpKey{subgroup_id(group, pair, ""), 0, 0});
  CHECK(member.participants(key) == pair);
  CHECK(member.participants({group, 0, 0}) == everybody);
  CHECK(said_to<Posted>(member, other).size() == 1);
  CHECK(said_to<Posted>(member, third).empty());
  const OpId op{{1, 1}, key};
  member.whole(now, op);
  REQUIRE(said_to<Done>(member, other).size() == 1);
  CHECK(said_to<Done>(member, third).empty());
  member.receive_from(now, third, Done{op, true});
  CHECK(take<OperationCommitted>(member).empty());
  member.receive_from(now, other, Done{op, false});
  const auto committed = take<OperationCommitted>(member);
  REQUIRE(committed.size() == 1);
  CHECK(!committed[0].hint);  // joiners are pending, but the third member does not hear of this
}

TEST_CASE("what can't be a subgroup is refused at once and takes no number") {
  View view = view_of(everybody, {1, 1});
  view.members.push_back({{4}, "else", Role::worker, {}});
  Member member = member_in(view);
  const auto refused = [&](const std::vector<PeerId>& members) {
    return member.post(now, call_of(members, 0, floats(8))).status();
  };
  CHECK(refused({other, third}).code() == Code::invalid_argument);
  CHECK(refused({me, other, me}).code() == Code::invalid_argument);
  CHECK(refused({me, {4}}).code() == Code::invalid_argument);
  const Status lost = refused({me, {9}});
  CHECK(lost.code() == Code::peer_lost);
  CHECK(lost.peer() == PeerId{9});
  CHECK(contains(lost.reason(), "peer 0000000000000009, is not in the view any more: make a new"));
  Call group_wide = call_of(pair, 0, floats(8));
  group_wide.group = group;
  CHECK(member.post(now, group_wide).status().code() == Code::invalid_argument);
  REQUIRE(member.post(now, call_of(pair, 0, floats(8))).ok());
  Call same_id = call_of(pair, 0, floats(8));
  same_id.members = {me, other};
  CHECK(contains(member.post(now, same_id).status().reason(), "same id"));
  CHECK(member.load().numbers == 1);
  CHECK(member.load().subgroups == 1);
  CHECK(member.post(now, call_of(pair, 0, floats(8))).value().seq == 1);
  Call foreign_root = call_of(pair, 0, rooted(0, third));
  CHECK(contains(member.post(now, foreign_root).status().reason(), "root is no member"));
}

TEST_CASE("a view without a member of it ends a subgroup and what is open of it") {
  Member member = member_in(view_of(everybody, {1, 1}));
  const OpKey whole_group = member.post(now, call(0, floats(8))).value();
  const OpKey posted_before = member.post(now, call_of(pair, 7, floats(8))).value();
  const std::vector<PeerId> others = {me, third};
  const OpKey goes_on = member.post(now, call_of(others, 7, floats(8))).value();
  member.receive(now, Freeze{{1, 1}});
  const OpKey posted_late = member.post(now, call_of(pair, 7, floats(8))).value();
  member.outbox.clear();
  member.receive(now, without(other));
  std::vector<OpKey> failed;
  std::vector<OpKey> started;
  for (const auto& effect : member.outbox) {
    if (const auto* failure = std::get_if<OperationFailed>(&effect)) {
      failed.push_back(failure->op);
      CHECK(failure->status.code() == Code::peer_lost);
      CHECK(failure->status.peer() == other);
      CHECK(contains(failure->status.reason(), "rank 0 of the subgroup"));
      CHECK(contains(failure->status.reason(), "somebody died"));
      CHECK(started.empty());
    }
    if (const auto* start = std::get_if<StartOperation>(&effect)) started.push_back(start->op.key);
  }
  CHECK(failed == std::vector<OpKey>{posted_before, posted_late});
  CHECK(started == std::vector<OpKey>{whole_group, goes_on});
  CHECK(member.participants(posted_before).empty());
  CHECK(member.load().open == 2);
  CHECK(member.load().subgroups == 1);
  CHECK(member.load().numbers == 2);
  CHECK(member.post(now, call_of(pair, 7, floats(8))).status().code() == Code::peer_lost);
}

TEST_CASE("what the view commits of a subgroup that it ends has been committed") {
  Member member = member_in(view_of(everybody, {1, 1}));
  const OpKey key = member.post(now, call_of(pair, 0, floats(8))).value();
  member.whole(now, {{1, 1}, key});
  member.receive(now, Freeze{{1, 1}});
  View next = without(other);
  next.decisions.push_back({key, Outcome::committed, false, {}});
  member.outbox.clear();
  member.receive(now, next);
  CHECK(std::get<OperationCommitted>(member.outbox.front()).op.key == key);
  CHECK(take<OperationFailed>(member).empty());
}

TEST_CASE("what a partner says before the subgroup is known here is kept, a stranger's is not") {
  Member member = member_in(view_of(everybody, {1, 1}));
  const OpId op{{1, 1}, {subgroup_id(group, pair, ""), 0, 0}};
  member.receive_from(now, other, posted(op, floats(8), 2.0));
  member.receive_from(now, other, Done{op, false});
  member.receive_from(now, third, Done{op, false});
  CHECK(member.load().known == 1);
  REQUIRE(member.post(now, call_of(pair, 0, floats(8))).ok());
  const auto arrived = take<PeerPosted>(member);
  REQUIRE(arrived.size() == 1);
  CHECK(arrived[0].peer == other);
  member.whole(now, op);
  CHECK(take<OperationCommitted>(member).size() == 1);
  member.receive_from(now, third, posted({{1, 1}, {op.key.group, 0, 1}}, floats(8)));
  CHECK(member.load().known == 0);
}

TEST_CASE("a failure is remembered of a subgroup that was not used yet, until the subgroup ends") {
  Member member = member_in(view_of(everybody, {1, 1}));
  const OpKey key{subgroup_id(group, pair, ""), 0, 0};
  View next = view_of(everybody, {1, 2}, {1, 1});
  next.kind = ViewKind::decision;
  next.decisions.push_back({key, Outcome::failed, false, Status(Code::timeout, "late")});
  next.subgroups.push_back({key.group, {1, 0}});
  member.receive(now, next);
  CHECK(member.load().failures == 1);
  SUBCASE("and its call fails") {
    member.outbox.clear();
    CHECK(member.post(now, call_of(pair, 0, floats(8))).value() == key);
    const auto failed = take<OperationFailed>(member);
    REQUIRE(failed.size() == 1);
    CHECK(failed[0].status.code() == Code::timeout);
    CHECK(member.post(now, call_of(pair, 0, floats(8))).value().seq == 1);
  }
  SUBCASE("or it ends") {
    View last = without(other);
    last.epoch = {1, 3};
    last.parent = {1, 2};
    member.receive(now, last);
    CHECK(member.load().failures == 0);
    CHECK(member.load().subgroups == 0);
  }
}

TEST_CASE("a report says who the subgroups are and which roots are needed") {
  Member member = member_in(view_of(everybody, {1, 1}));
  const OpKey of_pair = member.post(now, call_of(pair, 4, floats(8))).value();
  REQUIRE(member.post(now, call(0, rooted(2, third))).ok());
  member.outbox.clear();
  member.receive(now, Freeze{{1, 1}});
  const auto reports = reported<Report>(member);
  REQUIRE(reports.size() == 1);
  const Report& report = reports[0];
  CHECK(report.subgroups == std::vector<Subgroup>{{of_pair.group, {1, 0}}});
  const std::vector<NextSequence> numbers = {{group, 0, 1}, {of_pair.group, 4, 1}};
  CHECK(report.next_sequences == numbers);
  REQUIRE(report.operations.size() == 2);
  CHECK(report.operations[0].root == third);
  CHECK(!report.operations[1].root);
}

TEST_CASE("a timeout names ranks of the subgroup") {
  Member member = member_in(view_of(everybody, {1, 1}));
  const std::vector<PeerId> members = {third, me, other};
  Call one = call_of(members, 0, floats(8));
  one.deadline = now + 1s;
  const OpKey key = member.post(now, one).value();
  member.receive_from(now, third, posted({{1, 1}, key}, floats(8)));
  member.outbox.clear();
  member.tick(now + 1s);
  const auto refusals = reported<Refuse>(member);
  REQUIRE(refusals.size() == 1);
  CHECK(contains(refusals[0].status.reason(), "did not arrive: rank 2"));
  CHECK(contains(refusals[0].status.reason(), "arrived, not finished: rank 0"));
}

TEST_CASE("an operation whose root went before it could start is refused, and keeps its number") {
  Member member = member_in(view_of(everybody, {1, 1}));
  member.receive(now, Freeze{{1, 1}});
  const OpKey late = member.post(now, call(0, rooted(2, third))).value();
  member.outbox.clear();
  member.receive(now, without(third));
  CHECK(take<StartOperation>(member).empty());
  const OpKey later = member.post(now, call(0, rooted(2, third))).value();
  CHECK(later.seq == late.seq + 1);
  const auto refusals = reported<Refuse>(member);
  REQUIRE(refusals.size() == 1);
  CHECK(refusals[0].status.code() == Code::peer_lost);
  CHECK(refusals[0].status.peer() == third);
  member.outbox.clear();
  member.receive(now, Freeze{{1, 2}});
  CHECK(reported<Report>(member).at(0).operations.at(0).status.code() == Code::peer_lost);
}

TEST_CASE("an uneven operation tells each rank its amounts, and unequal ones end it") {
  Member member = member_in(view_of(everybody, {1, 1}));
  const OpKey key = member.post(now, uneven({5, 6, 7}, {5, 8, 9})).value();
  const auto said = said_to<Posted>(member, third);
  REQUIRE(said.size() == 1);
  CHECK(said[0].gives == 7);
  CHECK(said[0].takes == 9);
  Posted theirs = said[0];
  theirs.gives = 8;
  theirs.takes = 6;
  member.receive_from(now, other, theirs);
  CHECK(take<PeerPosted>(member).size() == 1);
  theirs.gives = 9;
  theirs.takes = 6;
  member.receive_from(now, third, theirs);
  const auto refusals = reported<Refuse>(member);
  REQUIRE(refusals.size() == 1);
  CHECK(refusals[0].status.code() == Code::mismatch);
  CHECK(refusals[0].status.reason() ==
        to_string(key) + ": rank 0 gives rank 2 7 elements, rank 2 takes 6");
}

TEST_CASE("amounts are for the ranks of the view in which they were given") {
  Member member = member_in(view_of(everybody, {1, 1}));
  CHECK(member.post(now, uneven({1, 2}, {1, 2})).status().code() == Code::invalid_argument);
  CHECK(member.post(now, uneven({1, 2, 3}, {2, 2, 3})).status().code() == Code::invalid_argument);
  Call even = call(0, floats(8));
  even.gives = {1, 2, 3};
  CHECK(member.post(now, even).status().code() == Code::invalid_argument);
  member.receive(now, Freeze{{1, 1}});
  REQUIRE(member.post(now, uneven({1, 2, 3}, {1, 2, 3})).ok());
  member.outbox.clear();
  SUBCASE("one of them is lost") {
    member.receive(now, without(third));
    CHECK(reported<Refuse>(member).at(0).status.code() == Code::peer_lost);
  }
  SUBCASE("others have joined") {
    member.receive(now, view_of({me, other, third, {4}}, {1, 2}, {1, 1}));
    CHECK(reported<Refuse>(member).at(0).status.code() == Code::mismatch);
  }
  CHECK(take<StartOperation>(member).empty());
}

TEST_CASE("shares that differ behind the first few are told apart") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  Descriptor mine = floats(0);
  mine.kind = Collective::all_gather;
  mine.shares = {1, 2, 3, 4, 5, 6};
  Descriptor theirs = mine;
  theirs.shares = {1, 2, 3, 4, 6, 5};
  const OpKey key = member.post(now, call(0, mine)).value();
  member.outbox.clear();
  member.receive_from(now, other, posted({{1, 1}, key}, theirs));
  const std::string text = reported<Refuse>(member).at(0).status.reason();
  CHECK(contains(text, "shares=[1, 2, 3, 4 ... 6 in all, 21 elements]"));
  CHECK(contains(text, "the share of rank 4 is 5 or 6"));
}

TEST_CASE("a member has a limited number of subgroups") {
  std::vector<PeerId> peers;
  for (std::uint64_t i = 1; i <= 70; ++i) peers.push_back({i});
  Member member = member_in(view_of(peers, {1, 1}));
  // Ends all that is open, for a member may have fewer operations open than subgroups.
  const auto next_view = [&] {
    const Epoch epoch = member.view().epoch;
    View next = view_of(peers, {1, epoch.counter + 1}, epoch);
    member.receive(now, Freeze{epoch});
    const std::vector<Report> reports = reported<Report>(member);
    for (const OperationReport& one : reports.back().operations) {
      next.decisions.push_back({one.op, Outcome::failed, false, Status(Code::timeout, "late")});
    }
    member.receive(now, next);
    member.outbox.clear();
  };
  const auto post_number = [&](std::uint64_t i) {
    return member.post(now, call_of({me, {2 + i / 68}, {3 + (i / 68 + i) % 68}}, 0, floats(1)));
  };
  std::size_t made = 0;
  for (std::uint64_t i = 0; made < subgroups_max; ++i) {
    const auto key = post_number(i);
    if (!key.ok()) REQUIRE(key.status().code() == Code::invalid_argument);  // twice the same
    made += key.ok() ? 1 : 0;
    if (key.ok() && made % operations_open_max == 0) next_view();
  }
  CHECK(member.load().subgroups == subgroups_max);
  CHECK(member.post(now, call_of({me, {70}, {69}}, 0, floats(1))).status().code() ==
        Code::limit_exceeded);
  REQUIRE(post_number(1).ok());
}
