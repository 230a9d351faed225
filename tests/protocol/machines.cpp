// Coordinator and Member by hand: what one call makes them say. The simulator does the rest.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "protocol/by_hand.hpp"
#include "protocol/codec.hpp"

using namespace pyccl;
using namespace pyccl::protocol;
using namespace pyccl::protocol::test;

TEST_CASE("a joiner says hello and is not a member before its view") {
  Member member({me, "default", Role::worker, {}, {}}, now);
  CHECK(member.post(now, call(0, floats(1))).status().code() == Code::not_admitted);
  CHECK(member.request_update(now, never).code() == Code::not_admitted);
  member.coordinator_connected(now);
  const auto sent = take<SendToCoordinator>(member);
  REQUIRE(sent.size() == 1);
  CHECK(std::holds_alternative<Hello>(sent[0].message));
  member.receive(now, view_of({me}, {1, 1}));
  CHECK(member.admitted());
  CHECK(take<ViewInstalled>(member).size() == 1);
}

TEST_CASE("a group's name that is too long ends the peer") {
  Member member({me, std::string(name_bytes_max + 1, 'x'), Role::worker, {}, {}}, now);
  member.coordinator_connected(now);
  const auto ended = take<Ended>(member);
  REQUIRE(ended.size() == 1);
  CHECK(ended[0].status.code() == Code::invalid_argument);
}

TEST_CASE("an operation commits with Done from all, and its hint is any of theirs") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  const auto key = member.post(now, call(3, floats(8)));
  REQUIRE(key.ok());
  const OpId op{{1, 1}, key.value()};
  CHECK(member.describe(key.value()).find("rank 1 (not seen yet)") != std::string::npos);
  member.receive_from(now, other, posted(op, floats(8), 2.5));
  const auto arrived = take<PeerPosted>(member);
  REQUIRE(arrived.size() == 1);
  CHECK(arrived[0].weight == 2.5);
  member.whole(now, op);
  CHECK(take<OperationCommitted>(member).empty());
  member.receive_from(now, other, Done{op, true});
  const auto committed = take<OperationCommitted>(member);
  REQUIRE(committed.size() == 1);
  CHECK(committed[0].hint);
  CHECK(member.load().open == 0);
}

TEST_CASE("alone in its group, whole is committed") {
  Member member = member_in(view_of({me}, {1, 1}));
  const auto key = member.post(now, call(0, floats(8)));
  member.whole(now, {{1, 1}, key.value()});
  CHECK(take<OperationCommitted>(member).size() == 1);
}

TEST_CASE("what belongs to another epoch, group or stranger changes nothing") {
  Member member = member_in(view_of({me, other}, {1, 2}));
  const OpKey key = member.post(now, call(0, floats(8))).value();
  member.outbox.clear();
  member.receive_from(now, other, posted({{1, 1}, key}, floats(8)));
  member.receive_from(now, PeerId{9}, posted({{1, 2}, key}, floats(8)));
  member.receive_from(now, other, posted({{1, 2}, {group_id("x"), 0, 0}}, floats(8)));
  member.receive(now, Freeze{{1, 1}});
  CHECK(member.outbox.empty());
  CHECK(!member.frozen());
}

TEST_CASE("messages of a later view wait for it, within a bound") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  const OpKey key{group, 0, 0};
  for (std::size_t i = 0; i < held_max + 10; ++i) {
    member.receive_from(now, other, posted({{1, 2}, key}, floats(8)));
  }
  CHECK(member.load().held == held_max);
  member.receive(now, view_of({me, other}, {1, 2}, {1, 1}));
  CHECK(member.load().held == 0);
  CHECK(member.load().known == 1);
}

TEST_CASE("a view of another parent is not taken") {
  Member member = member_in(view_of({me, other}, {1, 4}));
  member.receive(now, view_of({me}, {1, 6}, {1, 5}));
  CHECK(member.view().epoch == Epoch{1, 4});
  member.receive(now, view_of({me}, {2, 1}, {1, 4}));
  CHECK(member.view().epoch == Epoch{2, 1});
}

TEST_CASE("frozen, a member says nothing new; the next view starts its operations again") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  const OpKey key = member.post(now, call(0, floats(8))).value();
  member.receive(now, Freeze{{1, 1}});
  CHECK(member.frozen());
  member.outbox.clear();
  member.whole(now, {{1, 1}, key});
  REQUIRE(member.post(now, call(0, floats(8))).ok());
  CHECK(member.outbox.empty());
  member.receive(now, view_of({me}, {1, 2}, {1, 1}));
  const auto started = take<StartOperation>(member);
  REQUIRE(started.size() == 2);
  CHECK(started[0].attempt == 2);
  CHECK(started[1].attempt == 1);
}

TEST_CASE("a coordinator with another heartbeat limit leaves no alarm behind") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  const OpKey key = member.post(now, call(0, floats(8), now + 1s)).value();
  member.tick(now + 2s);
  member.receive(now + 2s, Welcome{{77}, 1, 25'000});
  View view = view_of({me}, {1, 2}, {1, 1});
  view.decisions.push_back({key, Outcome::failed, false, Status(Code::timeout, "late")});
  member.receive(now + 2s, view);
  REQUIRE(take<OperationFailed>(member).size() == 1);
  member.receive(now + 11s, Heartbeat{});
  member.tick(now + 12s);
  CHECK(!member.ended());
}

TEST_CASE("a mismatch names both ranks, the lower first") {
  Member member = member_in(view_of({other, me}, {1, 1}));
  const OpKey key = member.post(now, call(0, floats(8))).value();
  member.outbox.clear();
  member.receive_from(now, other, posted({{1, 1}, key}, floats(9)));
  const auto sent = take<SendToCoordinator>(member);
  REQUIRE(sent.size() == 1);
  const Status& status = std::get<Refuse>(sent[0].message).status;
  CHECK(status.code() == Code::mismatch);
  CHECK(status.reason() ==
        "tag 0 #0: rank 0 called all_reduce(sum, f32[9]), rank 1 called all_reduce(sum, f32[8])");
}

TEST_CASE("a weight that no caller can give is refused, and the sentence says whose") {
  Descriptor integers = floats(8);
  integers.parts[0].dtype = PYCCL_I32;
  Descriptor most = floats(8);
  most.reduce_op = PYCCL_MAX;
  const double infinite = std::numeric_limits<double>::infinity();
  const std::vector<std::tuple<Descriptor, double, bool>> cases = {
      {floats(8), 2.5, true},   {floats(8), -1.0, false}, {floats(8), infinite, false},
      {integers, 2.0, false},   {integers, 0.0, true},    {integers, 1.0, true},
      {most, 0.5, false},       {most, 1.0, true},        {floats(8), std::nan(""), false},
      {Descriptor{}, 3.0, true}};
  for (const auto& [descriptor, weight, allowed] : cases) {
    CAPTURE(weight);
    Member member = member_in(view_of({me, other}, {1, 1}));
    const OpKey key = member.post(now, call(0, descriptor)).value();
    member.outbox.clear();
    member.receive_from(now, other, posted({{1, 1}, key}, descriptor, weight));
    const auto effects = std::exchange(member.outbox, {});
    REQUIRE(effects.size() == 1);
    CHECK(std::holds_alternative<PeerPosted>(effects[0]) == allowed);
    if (allowed) continue;
    const auto& refuse = std::get<Refuse>(std::get<SendToCoordinator>(effects[0]).message);
    CHECK(refuse.status.code() == Code::protocol_violation);
    CHECK(refuse.status.peer() == other);
    CHECK(refuse.status.reason().find("rank 1 takes part in") != std::string::npos);
  }
}

TEST_CASE("limits of a member are errors with a sentence") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  for (std::size_t i = 0; i < operations_open_max; ++i) {
    REQUIRE(member.post(now, call(0, floats(1))).ok());
  }
  CHECK(member.post(now, call(0, floats(1))).status().code() == Code::limit_exceeded);
  Descriptor many;
  many.parts.resize(parts_max + 1);
  Member fresh = member_in(view_of({me}, {1, 1}));
  CHECK(fresh.post(now, call(0, many)).status().code() == Code::limit_exceeded);
  for (std::uint32_t tag = 0; tag < tags_max; ++tag) {
    const auto key = fresh.post(now, call(tag, floats(1)));
    REQUIRE(key.ok());
    fresh.whole(now, {{1, 1}, key.value()});
  }
  fresh.outbox.clear();
  CHECK(fresh.post(now, call(tags_max, floats(1))).status().code() == Code::limit_exceeded);
}

TEST_CASE("a peer cannot make a member remember without bound") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  for (std::uint32_t seq = 0; seq < 4 * operations_open_max; ++seq) {
    member.receive_from(now, other, posted({{1, 1}, {group, 0, seq}}, floats(8)));
  }
  CHECK(member.load().known == 2 * operations_open_max);
}

TEST_CASE("calls after an eviction say that, not that the peer has left") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  member.receive(now, Evicted{{1, 2}, Status(Code::evicted, "silent for 4 s")});
  CHECK(member.post(now, call(0, floats(1))).status().code() == Code::evicted);
  CHECK(member.request_update(now, never).code() == Code::evicted);
}

TEST_CASE("an older coordinator is refused") {
  Member member = member_in(view_of({me, other}, {3, 1}));
  member.coordinator_disconnected(now);
  CHECK(take<RedialCoordinator>(member).size() == 1);
  member.coordinator_connected(now);
  member.outbox.clear();
  member.receive(now, Welcome{{77}, 2, 4000});
  CHECK(take<RedialCoordinator>(member).size() == 1);
}

TEST_CASE("a silent coordinator is dialled again; heartbeats go out meanwhile") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  const Timing timing;
  member.tick(now + timing.heartbeat_interval());
  CHECK(take<SendToCoordinator>(member).size() == 1);
  member.tick(now + timing.heartbeat_limit);
  CHECK(take<RedialCoordinator>(member).size() == 1);
}

TEST_CASE("the first peer of an empty run is admitted at once, the next waits") {
  Coordinator coordinator({{77}, {}}, std::nullopt, now);
  CHECK(take<Persist>(coordinator).size() == 1);
  coordinator.receive(now, me, Hello{version, {}, info(me)});
  REQUIRE(said_to<View>(coordinator, me).size() == 1);
  CHECK(coordinator.view().members.size() == 1);
  coordinator.receive(now, other, Hello{version, {}, info(other)});
  CHECK(said_to<View>(coordinator, other).empty());
  CHECK(said_to<Welcome>(coordinator, other).size() == 1);
  CHECK(said_to<Pending>(coordinator, me).back().count == 1);
  CHECK(coordinator.joiner_count() == 1);
}

TEST_CASE("a view is durable before it is sent") {
  Coordinator coordinator({{77}, {}}, std::nullopt, now);
  coordinator.outbox.clear();
  coordinator.receive(now, me, Hello{version, {}, info(me)});
  bool durable = false;
  for (const auto& effect : coordinator.outbox) {
    const auto* persist = std::get_if<Persist>(&effect);
    if (persist != nullptr) durable = !persist->state.view.members.empty();
    const auto* send = std::get_if<SendTo>(&effect);
    if (send != nullptr && std::holds_alternative<View>(send->message)) CHECK(durable);
  }
  CHECK(durable);
}

TEST_CASE("who can't join is told why and hung up on") {
  Coordinator coordinator({{77}, {}}, std::nullopt, now);
  coordinator.receive(now, me, Hello{version, {}, info(me)});
  const auto refused = [&](PeerId peer, const Hello& hello) {
    coordinator.outbox.clear();
    coordinator.receive(now, peer, hello);
    const auto answers = said_to<NotAdmitted>(coordinator, peer);
    REQUIRE(answers.size() == 1);
    CHECK(take<Disconnect>(coordinator).size() == 1);
    return answers[0].status.reason();
  };
  CHECK(refused(other, Hello{version + 1, {}, info(other)}).find("version") != std::string::npos);
  CHECK(refused(other, Hello{version, {5}, info(other)}).find("another run") != std::string::npos);
  CHECK(refused(other, Hello{version, {}, info(PeerId{3})}).find("id") != std::string::npos);
  MemberInfo named = info(other);
  named.group = std::string(name_bytes_max + 1, 'g');
  CHECK(refused(other, Hello{version, {}, named}).find("longer") != std::string::npos);
  MemberInfo twin = info(me);
  twin.role = Role::mirror;
  CHECK(refused(me, Hello{version, {}, twin}).find("same id") != std::string::npos);
  for (std::uint64_t i = 0; i < joiners_max; ++i) {
    coordinator.receive(now, {100 + i}, Hello{version, {}, info({100 + i})});
  }
  CHECK(refused(other, Hello{version, {}, info(other)}).find("too many") != std::string::npos);
}

// Its connection may be dead for a while before the coordinator notices.
TEST_CASE("a joiner that comes back by another route stays one, with its new addresses") {
  const auto joiner_at = [](std::string address) {
    MemberInfo joiner = info(other);
    joiner.addresses = {std::move(address)};
    return joiner;
  };
  Coordinator coordinator({{77}, {}}, std::nullopt, now);
  coordinator.receive(now, me, Hello{version, {}, info(me)});
  coordinator.receive(now, other, Hello{version, {}, joiner_at("10.0.0.1:5")});
  coordinator.receive(now, other, Hello{version, {}, joiner_at("10.0.0.2:5")});
  CHECK(said_to<NotAdmitted>(coordinator, other).empty());
  CHECK(coordinator.joiner_count() == 1);

  coordinator.receive(now, me, Update{coordinator.view().epoch});
  REQUIRE(said_to<Prepare>(coordinator, other).size() == 1);
  const View prepared = said_to<Prepare>(coordinator, other).back().view;
  CHECK(*prepared.find(other) == joiner_at("10.0.0.2:5"));
  coordinator.receive(now, other, Hello{version, {}, joiner_at("10.0.0.3:5")});
  CHECK(*said_to<Prepare>(coordinator, other).back().view.find(other) == joiner_at("10.0.0.3:5"));

  coordinator.receive(now, me, Report{coordinator.view().epoch, {}, {}, {}, {}});
  coordinator.receive(now, me, Prepared{prepared.epoch, {}});
  coordinator.receive(now, other, Prepared{prepared.epoch, {}});
  REQUIRE(coordinator.view().find(other) != nullptr);
  CHECK(*coordinator.view().find(other) == joiner_at("10.0.0.3:5"));
  // It may not have heard of its admission. What is in a view stays as it is.
  coordinator.receive(now, other, Hello{version, {}, joiner_at("10.0.0.4:5")});
  CHECK(said_to<NotAdmitted>(coordinator, other).empty());
  CHECK(*coordinator.view().find(other) == joiner_at("10.0.0.3:5"));
}

TEST_CASE("an update() that is given up is withdrawn, and no end of it follows") {
  Member member = member_in(view_of({me, other}, {1, 1}));
  CHECK(!member.withdraw_update());
  REQUIRE(member.request_update(now, never).ok());
  member.outbox.clear();
  CHECK(member.withdraw_update());
  REQUIRE(member.outbox.size() == 1);
  const auto& sent = std::get<SendToCoordinator>(member.outbox[0]);
  CHECK(std::get<UpdateWithdrawn>(sent.message).epoch == Epoch{1, 1});
  CHECK(member.request_update(now, never).ok());
}

TEST_CASE("a member ends when the coordinator has been away too long, if it has a limit") {
  Timing timing;
  timing.coordinator_limit = 3s;
  Member member({me, "default", Role::worker, {"127.0.0.1:1"}, timing}, now);
  member.coordinator_connected(now);
  member.receive(now, view_of({me}, {1, 1}));
  const Time broke = now + 1s;
  member.coordinator_disconnected(broke);
  CHECK(member.next_deadline() == broke + 3s);
  // That somebody accepts the connection says nothing yet.
  member.coordinator_connected(broke + 1s);
  member.tick(broke + 2s);
  CHECK(!member.ended());
  SUBCASE("it speaks again") {
    member.receive(broke + 2s, Pending{0});
    member.tick(broke + 4s);
    CHECK(!member.ended());
  }
  SUBCASE("it stays silent") {
    member.tick(broke + 3s);
    const auto ended = take<Ended>(member);
    REQUIRE(ended.size() == 1);
    CHECK(ended[0].status.code() == Code::coordinator_unavailable);
  }
}

TEST_CASE("a boundary is due when operations of the whole group have got numbers since the last") {
  View view = view_of({me, other}, {1, 1});
  Member member = member_in(view);
  const auto next_view = [&](ViewKind kind, std::vector<Decision> decisions) {
    view.kind = kind;
    view.parent = view.epoch;
    ++view.epoch.counter;
    view.decisions = std::move(decisions);
    member.receive(now, view);
  };
  CHECK(!member.boundary_due());
  const OpKey cancelled = member.post(now, call(5, floats(8))).value();
  CHECK(member.boundary_due());
  member.refuse(now, cancelled, Status(Code::cancelled, "by its caller", me));
  next_view(ViewKind::loss,
            {{cancelled, Outcome::withdrawn, false, Status(Code::cancelled, "by its caller", me)}});
  CHECK(!member.boundary_due());

  const OpKey failed = member.post(now, call(5, floats(8))).value();
  CHECK(failed == cancelled);
  next_view(ViewKind::loss, {{failed, Outcome::failed, false, Status(Code::timeout, "late")}});
  CHECK(member.boundary_due());
  // Called while the view is made, it begins behind the boundary.
  member.receive(now, Freeze{view.epoch});
  REQUIRE(member.post(now, call(0, floats(8))).ok());
  next_view(ViewKind::boundary, {});
  CHECK(member.boundary_due());
  next_view(ViewKind::boundary, {{{group, 0, 0}, Outcome::committed, false, {}}});
  CHECK(!member.boundary_due());
}

// A coordinator with the members me and other.
Coordinator coordinator_of_two() {
  Coordinator coordinator({{77}, {}}, std::nullopt, now);
  coordinator.receive(now, me, Hello{version, {}, info(me)});
  coordinator.receive(now, other, Hello{version, {}, info(other)});
  coordinator.receive(now, me, Update{coordinator.view().epoch});
  const Epoch candidate = said_to<Prepare>(coordinator, other).back().view.epoch;
  coordinator.receive(now, me, Report{coordinator.view().epoch, {}, {}, {}, {}});
  coordinator.receive(now, me, Prepared{candidate, {}});
  coordinator.receive(now, other, Prepared{candidate, {}});
  REQUIRE(coordinator.view().members.size() == 2);
  return coordinator;
}

TEST_CASE("each decision has its sentence") {
  Coordinator coordinator = coordinator_of_two();
  CHECK(coordinator.view().reason == "all members called update(); joined: 1");
  coordinator.disconnected(now, other);
  CHECK(take<Probe>(coordinator).size() == 1);
  coordinator.probed(now, other, ProbeResult::refused);
  coordinator.receive(now, me, Report{coordinator.view().epoch, {}, {}, {}, {}});
  CHECK(coordinator.view().reason == "peer 0000000000000002 (rank 1) died: connection refused");
}

// A process that ends takes connections that it never accepted down with it.
TEST_CASE("who may be going down is asked again, whatever became of the probe") {
  for (const ProbeResult first : {ProbeResult::reachable, ProbeResult::unreachable}) {
    Coordinator coordinator = coordinator_of_two();
    coordinator.disconnected(now, other);
    CHECK(take<Probe>(coordinator).size() == 1);
    coordinator.outbox.clear();
    coordinator.probed(now, other, first);
    CHECK(take<Probe>(coordinator).empty());
    coordinator.tick(now + 100ms);
    CHECK(take<Probe>(coordinator).size() == 1);
  }
}

TEST_CASE("members hear the decisions of their own subgroups, also from a restarted coordinator") {
  const std::vector<PeerId> peers = {me, other, {3}};
  CoordinatorState state{{77}, 1, view_of(peers, {1, 1})};
  Coordinator coordinator({{77}, {}}, state, now);
  const GroupId pair = subgroup_id(group, std::vector<PeerId>{other, me}, "");
  const auto register_all = [&](Coordinator& one, const View& known) {
    for (PeerId peer : peers) one.receive(now, peer, Register{version, peer, known});
  };
  register_all(coordinator, state.view);
  const Status late(Code::timeout, "late");
  Report report{{1, 1}, {}, {}, {}, {{pair, {1, 0}}}};
  report.operations = {{{pair, 0, 0}, OperationState::posted, false, OnLoss::retry, {}, late}};
  coordinator.receive(now, me, report);
  for (PeerId peer : {other, PeerId{3}}) {
    coordinator.receive(now, peer, Report{{1, 1}, {}, {}, {}, {}});
  }
  const auto check = [&](const Coordinator& one) {
    for (PeerId peer : peers) {
      const View got = said_to<View>(one, peer).at(0);
      CHECK(got.decisions.size() == (peer == PeerId{3} ? 0 : 1));
      CHECK(got.subgroups.size() == got.decisions.size());
    }
  };
  check(coordinator);
  const auto durable = take<Persist>(coordinator).back().state;
  Coordinator restarted({{77}, {}}, durable, now);
  register_all(restarted, state.view);
  check(restarted);
}

TEST_CASE("whoever claims more than a view can decide is left out, and the others go on") {
  CoordinatorState state{{77}, 1, {}};
  state.view.run = {77};
  state.view.epoch = {1, 1};
  for (std::uint64_t peer = 1; peer <= 40; ++peer) state.view.members.push_back(info({peer}));
  const View before = state.view;
  Coordinator coordinator({{77}, {}}, state, now);
  for (const MemberInfo& member : before.members) {
    coordinator.receive(now, member.peer, Register{version, member.peer, before});
  }
  coordinator.outbox.clear();
  for (const MemberInfo& member : before.members) {
    Report report{{1, 1}, {}, {}, {}, {}};
    const auto own = static_cast<std::uint32_t>(member.peer.value);
    for (std::uint32_t seq = 0; seq < operations_open_max; ++seq) {
      report.operations.push_back(
          {{group, own, seq}, OperationState::whole, false, OnLoss::retry, {}, {}});
    }
    for (std::uint32_t tag = 1; tag <= 40; ++tag) {
      report.next_sequences.push_back({group, tag, operations_open_max});
    }
    coordinator.receive(now, member.peer, report);
  }
  const std::size_t members = coordinator.view().members.size();
  CHECK(members == decisions_certain_max / operations_open_max);
  CHECK(said_to<Evicted>(coordinator, {1}).size() + said_to<View>(coordinator, {1}).size() == 1);
  for (const MemberInfo& member : coordinator.view().members) {
    const auto views = said_to<View>(coordinator, member.peer);
    REQUIRE(views.size() == 1);
    CHECK(views[0].decisions.size() == members * operations_open_max);
    CHECK(decode(encode(views[0])).ok());
  }
}
