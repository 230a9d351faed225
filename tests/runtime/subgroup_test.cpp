// Subgroups and pairs, as callers name them by ranks.
#include "runtime/subgroup.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "protocol/limits.hpp"

using pyccl::PeerId;
using pyccl::Rank;
using pyccl::collectives::Kind;
using pyccl::runtime::any_source;
using pyccl::runtime::ask_pair;
using pyccl::runtime::kind_of;
using pyccl::runtime::pair_of;
using pyccl::runtime::PairRole;
using pyccl::runtime::subgroup_of;

namespace {

// By rank; ids have an order of their own.
const std::vector<PeerId> peers{{50}, {20}, {70}, {10}};

}  // namespace

TEST_CASE("a subgroup has its members in the order of the ranks that were given") {
  const auto made = subgroup_of(peers, {20}, {3, 1, 0}, "name");
  REQUIRE(made.ok());
  CHECK(made.value().members == std::vector<PeerId>{{10}, {20}, {50}});
  CHECK(made.value().rank == 1);
  CHECK(made.value().within(peers));
  CHECK_FALSE(made.value().within({{50}, {10}, {70}}));

  pyccl::engine::Request request;
  made.value().apply(request);
  CHECK(request.members == made.value().members);
  CHECK(request.name == made.value().name);
}

TEST_CASE("ranks that make no subgroup are refused with a reason") {
  const auto reason = [](const std::vector<Rank>& ranks, const std::string& name = "") {
    return subgroup_of(peers, {20}, ranks, name).status().reason();
  };
  CHECK(reason({}).find("at least one rank") != std::string::npos);
  CHECK(reason({1, 4}).find("no rank 4 among 4") != std::string::npos);
  CHECK(reason({-1}).find("no rank -1") != std::string::npos);
  CHECK(reason({1, 0, 1}).find("rank 1 comes twice") != std::string::npos);
  CHECK(reason({0, 2}).find("own rank") != std::string::npos);
  CHECK(reason({1}, std::string(pyccl::protocol::name_bytes_max, 'n')).find("name") !=
        std::string::npos);
  CHECK(reason({1}, std::string(pyccl::protocol::name_bytes_max - 1, 'n')).empty());
}

TEST_CASE("both sides of a pair make the same one") {
  const auto sender = pair_of(peers, 5, {50}, PairRole::sender, 1, "");
  const auto receiver = pair_of(peers, 5, {20}, PairRole::receiver, 0, "");
  CHECK(sender.value().members == std::vector<PeerId>{{50}, {20}});
  CHECK(receiver.value().members == sender.value().members);
  CHECK(receiver.value().name == sender.value().name);
  CHECK(sender.value().rank == 0);
  CHECK(receiver.value().rank == 1);
  CHECK(kind_of(PairRole::sender, sender.value()) == Kind::send);
  CHECK(kind_of(PairRole::receiver, receiver.value()) == Kind::send);

  const auto one = pair_of(peers, 5, {50}, PairRole::partner, 1, "");
  const auto other = pair_of(peers, 5, {20}, PairRole::partner, 0, "");
  CHECK(one.value().members == std::vector<PeerId>{{20}, {50}});
  CHECK(other.value().members == one.value().members);
  CHECK(one.value().rank == 1);
  CHECK(other.value().rank == 0);
  CHECK(kind_of(PairRole::partner, one.value()) == Kind::exchange);
}

TEST_CASE("a pair is apart from the other direction and from what callers name") {
  const auto there = pair_of(peers, 5, {50}, PairRole::sender, 1, "").take();
  const auto back = pair_of(peers, 5, {50}, PairRole::receiver, 1, "").take();
  CHECK(there.members != back.members);
  for (const std::string name : {"", "send", "exchange"}) {
    CHECK(subgroup_of(peers, {50}, {0, 1}, name).value().name != there.name);
    const auto within = subgroup_of(peers, {50}, {0, 1}, name).take();
    CHECK(pair_of(peers, 5, {50}, PairRole::sender, 1, within.name).value().name != there.name);
  }
}

TEST_CASE("with oneself an exchange is a copy, and a message is refused") {
  const auto alone = pair_of(peers, 5, {70}, PairRole::partner, 2, "");
  CHECK(alone.value().members == std::vector<PeerId>{{70}});
  CHECK(alone.value().rank == 0);
  CHECK(kind_of(PairRole::partner, alone.value()) == Kind::all_gather);
  CHECK_FALSE(pair_of(peers, 5, {70}, PairRole::sender, 2, "").ok());
  CHECK_FALSE(pair_of(peers, 5, {70}, PairRole::receiver, 2, "").ok());
}

TEST_CASE("a rank that there was is lost, one that there never was is a mistake") {
  const auto code = [](Rank other) {
    return pair_of(peers, 5, {70}, PairRole::receiver, other, "").status().code();
  };
  CHECK(code(3) == pyccl::Code::ok);
  CHECK(code(4) == pyccl::Code::peer_lost);
  CHECK(code(5) == pyccl::Code::invalid_argument);
  CHECK(code(-1) == pyccl::Code::invalid_argument);
}

TEST_CASE("a receiver may name its sender or leave it open") {
  pyccl::runtime::ViewSnapshot view;
  view.peers = peers;
  view.members_most = 5;
  const auto ask = [&](PairRole role, Rank other, const pyccl::runtime::Subgroup* within) {
    pyccl::engine::Request request;
    const pyccl::Status status = ask_pair(request, view, within, {20}, role, other);
    CHECK(status.code() == pyccl::Code::ok);
    return request;
  };
  const auto named = ask(PairRole::receiver, 2, nullptr);
  CHECK(named.members == std::vector<PeerId>{{70}, {20}});
  CHECK(named.sources.empty());
  CHECK(named.source == 2);
  const auto open = ask(PairRole::receiver, any_source, nullptr);
  CHECK(open.kind == Kind::send);
  CHECK(open.members.empty());
  CHECK(open.sources == peers);
  CHECK(open.source == -1);
  CHECK(open.name == named.name);
  CHECK(ask(PairRole::sender, 2, nullptr).source == -1);
  CHECK(ask(PairRole::partner, 2, nullptr).source == -1);

  const auto subgroup = subgroup_of(peers, {20}, {3, 1, 0}, "name").take();
  const auto within = ask(PairRole::receiver, any_source, &subgroup);
  CHECK(within.sources == subgroup.members);
  CHECK(within.name == ask(PairRole::receiver, 0, &subgroup).name);
  CHECK(within.name != open.name);
}

TEST_CASE("nobody can be any source but of a receiver, and where there is somebody else") {
  pyccl::engine::Request request;
  pyccl::runtime::ViewSnapshot view;
  view.peers = {{20}};
  view.members_most = 1;
  const auto code = [&](PairRole role, const pyccl::runtime::Subgroup* within) {
    return ask_pair(request, view, within, {20}, role, any_source).code();
  };
  CHECK(code(PairRole::receiver, nullptr) == pyccl::Code::invalid_argument);
  CHECK(code(PairRole::sender, nullptr) == pyccl::Code::invalid_argument);
  CHECK(code(PairRole::partner, nullptr) == pyccl::Code::invalid_argument);
  view.members_most = 2;
  CHECK(code(PairRole::receiver, nullptr) == pyccl::Code::peer_lost);
  const auto subgroup = subgroup_of(view.peers, {20}, {0}, "").take();
  CHECK(code(PairRole::receiver, &subgroup) == pyccl::Code::invalid_argument);
}
