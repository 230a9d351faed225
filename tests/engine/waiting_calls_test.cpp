// Calls without a number: which of them may be posted, in which order, and which never can be.
#include "engine/waiting_calls.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "engine/call.hpp"

using namespace pyccl;
using namespace pyccl::engine;

namespace {

constexpr Time now{1'000'000'000};
constexpr PeerId me{10};
constexpr PeerId left{20};
constexpr PeerId right{30};
const GroupId group = group_id("default");
const std::vector<PeerId> ranks = {left, me, right};

protocol::View view_of(const std::vector<PeerId>& peers, Epoch epoch, Epoch parent = {}) {
  protocol::View view;
  view.run = {77};
  view.epoch = epoch;
  view.parent = parent;
  for (const PeerId peer : peers) {
    view.members.push_back({peer, "default", protocol::Role::worker, {"127.0.0.1:1"}});
  }
  return view;
}

Request from_any(std::uint32_t tag = 0) {
  Request request;
  request.kind = collectives::Kind::send;
  request.name = "send";
  request.sources = ranks;
  request.tag = tag;
  return request;
}

Request from(PeerId sender, std::uint32_t tag = 0) {
  Request request = from_any(tag);
  request.sources.clear();
  request.members = pair_of(sender, me);
  return request;
}

struct Fixture {
  Fixture() : member({me, "default", protocol::Role::worker, {"127.0.0.1:1"}, {}}, now) {
    member.coordinator_connected(now);
    member.receive(now, protocol::Welcome{{77}, 1, 4000});
    member.receive(now, view_of(ranks, {1, 1}));
    while (next()) {
    }
  }

  void add(Ticket ticket, Request request) {
    waiting.add({ticket, std::move(request), now}, member.view());
  }

  void sends(PeerId sender, std::uint32_t seq = 0, std::uint32_t tag = 0) {
    const GroupId pair = subgroup_id(group, pair_of(sender, me), "send");
    member.receive_from(now, sender,
                        protocol::Posted{{member.view().epoch, {pair, tag, seq}}, {}, 0, 0, 0});
  }

  // What may go on, which takes its number as the peer would have it do.
  std::optional<std::pair<WaitingCall, Status>> next() {
    auto found = waiting.next(member, now, [&](protocol::Numbering numbers) {
      ++questions;
      return numbers == undecided;
    });
    if (found && found->second.ok()) {
      protocol::Call call;
      call.members = found->first.request.members;
      call.group = group_of(found->first.request, group);
      call.tag = found->first.request.tag;
      REQUIRE(member.post(now, std::move(call)).ok());
    }
    return found;
  }

  // Who it got, or nobody.
  std::optional<std::pair<Ticket, Rank>> goes_on() {
    const auto found = next();
    if (!found) return std::nullopt;
    REQUIRE(found->second.ok());
    return std::pair{found->first.ticket, found->first.request.source};
  }

  protocol::Member member;
  WaitingCalls waiting{me, group};
  protocol::Numbering undecided{};
  int questions = 0;
};

using Gone = std::optional<std::pair<Ticket, Rank>>;

}  // namespace

TEST_CASE_FIXTURE(Fixture, "a receiver from any source gets who came first, then who came next") {
  add(1, from_any());
  add(2, from_any());
  CHECK(!goes_on());
  sends(right);
  sends(left);
  const auto first = next();
  REQUIRE(first);
  CHECK(first->first.ticket == 1);
  CHECK(first->first.request.members == pair_of(right, me));
  CHECK(first->first.request.source == 2);
  CHECK(goes_on() == Gone({2, 0}));
  CHECK(waiting.empty());
}

TEST_CASE_FIXTURE(Fixture, "tags are apart") {
  add(1, from_any(5));
  add(2, from_any(6));
  sends(left, 0, 6);
  CHECK(goes_on() == Gone({2, 0}));
  CHECK(!goes_on());
  sends(left, 0, 5);
  CHECK(goes_on() == Gone({1, 0}));
}

TEST_CASE_FIXTURE(Fixture, "receives get what was sent in the order of their calls") {
  add(1, from_any());
  CHECK(waiting.want({group_of(from(left), group), 0}));
  CHECK(!waiting.want({group_of(from(left), group), 1}));
  add(2, from(left));
  add(3, from_any());
  CHECK(!goes_on());
  SUBCASE("of one sender") {
    sends(left, 0);
    sends(left, 1);
    CHECK(goes_on() == Gone({1, 0}));
    CHECK(goes_on() == Gone({2, -1}));
    sends(left, 2);
    CHECK(goes_on() == Gone({3, 0}));
  }
  SUBCASE("the one that names a sender waits no longer than those before it") {
    sends(right);
    CHECK(goes_on() == Gone({1, 2}));
    CHECK(goes_on() == Gone({2, -1}));  // whether its sender has sent or not
    CHECK(!goes_on());
  }
  SUBCASE("nor when that one is given up") {
    CHECK(waiting.remove(1));
    CHECK(!waiting.remove(1));
    CHECK(goes_on() == Gone({2, -1}));
  }
}

TEST_CASE_FIXTURE(Fixture, "no number is taken that may become free again") {
  undecided = {group_of(from(left), group), 0};
  add(1, from_any());
  add(2, from(left));
  sends(left);
  CHECK(!goes_on());
  sends(right);
  CHECK(goes_on() == Gone({1, 2}));
  CHECK(!goes_on());
  undecided = {};
  waiting.decided();
  CHECK(goes_on() == Gone({2, -1}));
}

TEST_CASE_FIXTURE(Fixture, "those who are lost are waited for no more") {
  add(1, from_any());
  const protocol::View without = view_of({me, right}, {1, 2}, {1, 1});
  member.receive(now, without);
  waiting.install(without);
  SUBCASE("while others are left") {
    CHECK(!goes_on());
    sends(right);
    CHECK(goes_on() == Gone({1, 2}));  // the rank is that of the call
  }
  SUBCASE("until nobody is") {
    const protocol::View alone = view_of({me}, {1, 3}, {1, 2});
    member.receive(now, alone);
    CHECK(!next());  // not before the peer itself has come to the view
    waiting.install(alone);
    add(2, from_any());
    for (const Ticket ticket : {1, 2}) {
      const auto failed = next();
      REQUIRE(failed);
      CHECK(failed->first.ticket == ticket);
      CHECK(failed->second.code() == Code::peer_lost);
      CHECK(failed->second.peer() == right);
      CHECK(failed->second.reason().find("none of those is left") != std::string::npos);
    }
    CHECK(!next());
  }
}

TEST_CASE_FIXTURE(Fixture, "oneself is nobody to wait for") {
  Request alone = from_any();
  alone.sources = {me};
  add(1, alone);
  const auto failed = next();
  REQUIRE(failed);
  CHECK(failed->second.code() == Code::invalid_argument);
}

TEST_CASE_FIXTURE(Fixture, "one whose sender is lost after all goes back to its place") {
  add(1, from_any());
  add(2, from_any());
  sends(left);
  auto taken = next();
  REQUIRE(taken);
  const protocol::View without = view_of({me, right}, {1, 2}, {1, 1});
  member.receive(now, without);
  waiting.install(without);
  const Status lost(Code::peer_lost, "died", left);
  CHECK(!waiting.add_again({5, from(left), now}, lost, without));
  CHECK(!waiting.add_again(taken->first, Status(Code::mismatch, "differ", left), without));
  REQUIRE(waiting.add_again(taken->first, lost, without));
  sends(right);
  CHECK(goes_on() == Gone({1, 2}));
  CHECK(!waiting.add_again(taken->first, lost, view_of({me}, {1, 3}, {1, 2})));
}

TEST_CASE_FIXTURE(Fixture, "a deadline says for what the call has waited, and harms no sender") {
  Request any = from_any(4);
  any.deadline = now;
  Request behind = from(right, 4);
  behind.deadline = now - 1s;
  Request held = from(right, 9);
  held.deadline = now + 1s;
  undecided = {group_of(held, group), 9};
  add(1, any);
  add(2, behind);
  add(3, held);
  CHECK(waiting.next_deadline() == now - 1s);
  sends(left, 0, 4);
  CHECK(!next());
  const auto text = [&](Ticket expected, Time at) {
    const auto late = waiting.expire(at);
    REQUIRE(late);
    CHECK(late->first == expected);
    CHECK(late->second.code() == Code::timeout);
    return late->second.reason();
  };
  CHECK(text(2, now - 1s).find("behind a recv from any member with tag 4") != std::string::npos);
  CHECK(text(1, now).find("no member sent with tag 4 in time, of 2") != std::string::npos);
  CHECK(!waiting.expire(now));
  CHECK(text(3, now + 1s).find("cancelled") != std::string::npos);
  CHECK(!waiting.next_deadline());
}

TEST_CASE_FIXTURE(Fixture, "it looks again only when something has changed") {
  add(1, from_any());
  CHECK(!next());
  const int before = questions;
  CHECK(before > 0);
  CHECK(!next());
  CHECK(questions == before);
  sends(left, 3);  // is not what it waits for, but might have been
  CHECK(!next());
  CHECK(questions > before);
  CHECK(waiting.remove_all() == std::vector<Ticket>{1});
  CHECK(waiting.empty());
}
