// Who of several senders was first, as a receiver that has named none asks its Member.
#include <doctest/doctest.h>

#include "protocol/by_hand.hpp"

using namespace pyccl;
using namespace pyccl::protocol;
using namespace pyccl::protocol::test;

namespace {

constexpr PeerId third{3};
const std::vector<PeerId> everybody = {me, other, third};

GroupId pair_with(PeerId sender) {
  const std::vector<PeerId> members = {sender, me};
  return subgroup_id(group, members, "");
}

OpId send_of(PeerId sender, std::uint32_t tag, std::uint32_t seq, Epoch epoch = {1, 1}) {
  return {epoch, {pair_with(sender), tag, seq}};
}

void hear_of(Member& member, PeerId sender, std::uint32_t tag, std::uint32_t seq) {
  member.receive_from(now, sender,
                      posted(send_of(sender, tag, seq, member.view().epoch), floats(8)));
}

std::optional<std::uint64_t> called(const Member& member, PeerId sender, std::uint32_t tag = 0) {
  return member.called_by(sender, {pair_with(sender), tag});
}

Result<OpKey> receive(Member& member, PeerId sender) {
  return member.post(now, call_of({sender, me}, 0, floats(8)));
}

}  // namespace

TEST_CASE("calls of others are told apart by their order, their tag and their number") {
  Member member = member_in(view_of(everybody, {1, 1}));
  CHECK(!called(member, other));
  hear_of(member, third, 0, 0);
  hear_of(member, other, 0, 0);
  hear_of(member, other, 7, 1);
  REQUIRE(called(member, other));
  CHECK(*called(member, third) < *called(member, other));
  CHECK(!called(member, other, 7));  // what came is not the next one of this tag
  hear_of(member, other, 7, 0);
  CHECK(*called(member, other) < *called(member, other, 7));
}

TEST_CASE("a number that is posted here is waited for no more, the one behind it is") {
  Member member = member_in(view_of(everybody, {1, 1}));
  hear_of(member, other, 0, 0);
  const std::uint64_t first = *called(member, other);
  REQUIRE(receive(member, other).value().seq == 0);
  CHECK(!called(member, other));
  hear_of(member, other, 0, 1);
  CHECK(*called(member, other) > first);
}

TEST_CASE("one who speaks of a pair that is not his is not its sender") {
  Member member = member_in(view_of(everybody, {1, 1}));
  member.receive_from(now, third, posted(send_of(other, 0, 0), floats(8)));
  CHECK(!called(member, other));
  hear_of(member, other, 0, 0);
  CHECK(called(member, other));
}

TEST_CASE("a Done before its Posted is no call") {
  Member member = member_in(view_of(everybody, {1, 1}));
  member.receive_from(now, other, Done{send_of(other, 0, 0), false});
  CHECK(!called(member, other));
}

TEST_CASE("heard() rises with calls that were not made here, and with each view") {
  Member member = member_in(view_of(everybody, {1, 1}));
  const std::uint64_t before = member.heard();
  REQUIRE(receive(member, other).ok());
  hear_of(member, other, 0, 0);
  CHECK(member.heard() == before);
  hear_of(member, third, 0, 0);
  CHECK(member.heard() == before + 1);
  hear_of(member, third, 0, 0);  // again, over another connection
  CHECK(member.heard() == before + 1);
  member.receive(now, Freeze{{1, 1}});
  member.receive(now, view_of(everybody, {1, 2}, {1, 1}));
  CHECK(member.heard() > before + 1);
}

TEST_CASE("nothing is said while frozen, and the next view begins anew") {
  Member member = member_in(view_of(everybody, {1, 1}));
  hear_of(member, other, 0, 0);
  member.receive(now, Freeze{{1, 1}});
  CHECK(!called(member, other));
  member.receive(now, view_of(everybody, {1, 2}, {1, 1}));
  CHECK(!called(member, other));
  hear_of(member, third, 0, 0);
  hear_of(member, other, 0, 0);
  CHECK(*called(member, third) < *called(member, other));
}

TEST_CASE("a call that has failed meanwhile comes before all others") {
  Member member = member_in(view_of(everybody, {1, 1}));
  View next = view_of(everybody, {1, 2}, {1, 1});
  next.kind = ViewKind::decision;
  const OpKey key = send_of(other, 0, 0).key;
  next.decisions.push_back({key, Outcome::failed, false, Status(Code::timeout, "late")});
  next.subgroups.push_back({key.group, {1, 0}});
  member.receive(now, next);
  hear_of(member, third, 0, 0);
  REQUIRE(called(member, other));
  CHECK(*called(member, other) < *called(member, third));
  member.outbox.clear();
  REQUIRE(receive(member, other).value() == key);
  CHECK(take<OperationFailed>(member).size() == 1);
  CHECK(!called(member, other));
}
