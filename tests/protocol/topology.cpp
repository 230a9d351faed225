// What follows for a group from what its members have measured: rates, latencies, and a ring.
#include "protocol/topology.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "base/prng.hpp"
#include "protocol/ring_order.hpp"

using namespace pyccl;
using namespace pyccl::protocol;

namespace {

const GroupId group = group_id("default");

View view_of(const std::vector<std::uint64_t>& peers) {
  View view;
  for (const std::uint64_t peer : peers) {
    view.members.push_back({{peer}, "default", Role::worker, {}});
  }
  return view;
}

using Say = std::vector<MeasuredLink>;

// Everybody of peers 1 to n says what `link(self, other)` gives.
template <class Link>
Topology topology_of(std::uint64_t peers, Link link) {
  Topology topology;
  for (std::uint64_t self = 1; self <= peers; ++self) {
    Say say;
    for (std::uint64_t other = 1; other <= peers; ++other) {
      if (other != self) say.push_back(link(self, other));
    }
    topology.learn({self}, say);
  }
  return topology;
}

GroupLinks only_links(const std::vector<GroupLinks>& all) {
  REQUIRE(all.size() == 1);
  return all.front();
}

std::uint64_t cost_of(const PairCosts& costs, const std::vector<std::size_t>& ring) {
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < ring.size(); ++i) {
    sum += costs.at(ring[i], ring[(i + 1) % ring.size()]);
  }
  return sum;
}

}  // namespace

TEST_CASE("nothing is said of a group on one host, or of which nothing is known") {
  const View view = view_of({1, 2, 3});
  CHECK(Topology().links_of(view, {}).empty());
  const Topology near =
      topology_of(3, [](auto, auto other) { return MeasuredLink{{other}, 0, 0}; });
  CHECK(near.links_of(view, {}).empty());
}

TEST_CASE("latency is that of the farthest pair, the mesh as fast as its slowest") {
  const Topology topology = topology_of(4, [](auto self, auto other) {
    const bool far = self + other == 7;  // 3 and 4
    return MeasuredLink{{other}, far ? 900u : 100u, far ? 20u : 1000u};
  });
  const GroupLinks links = only_links(topology.links_of(view_of({1, 2, 3, 4}), {}));
  CHECK(links.group == group);
  CHECK(links.latency_us == 900);
  CHECK(links.mesh_mb_per_s == 20);
}

TEST_CASE("the ring goes round a slow link, and says so") {
  const Topology topology = topology_of(6, [](auto self, auto other) {
    const bool slow = self + other == 3;  // 1 and 2: ranks 0 and 1
    return MeasuredLink{{other}, 100u, slow ? 12u : 1000u};
  });
  const GroupLinks links = only_links(topology.links_of(view_of({1, 2, 3, 4, 5, 6}), {}));
  CHECK(links.mesh_mb_per_s == 12);
  CHECK(links.ring_mb_per_s == 1000);
  CHECK(links.ring_latency_us == 100);
  REQUIRE(links.ring.size() == 6);
  for (std::size_t i = 0; i < 6; ++i) {
    CHECK(links.ring[i] + links.ring[(i + 1) % 6] != 1);
  }
}

TEST_CASE("two sites are crossed twice, not at every hop") {
  // Odd ones at one site, even ones at the other.
  const Topology topology = topology_of(8, [](auto self, auto other) {
    const bool far = (self + other) % 2 == 1;
    return MeasuredLink{{other}, far ? 40'000u : 100u, far ? 60u : 1200u};
  });
  const GroupLinks links = only_links(topology.links_of(view_of({1, 2, 3, 4, 5, 6, 7, 8}), {}));
  REQUIRE(links.ring.size() == 8);
  int crossings = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    crossings += (links.ring[i] + links.ring[(i + 1) % 8]) % 2;
  }
  CHECK(crossings == 2);
  CHECK(links.latency_us == 40'000);
  CHECK(links.ring_latency_us == (2 * 40'000 + 6 * 100) / 8);
}

TEST_CASE("of the two ends of a pair the lower values count, and one may be silent") {
  Topology topology;
  topology.learn({1}, {{{2}, 300, 500}});
  topology.learn({2}, {{{1}, 200, 700}});
  const View view = view_of({1, 2, 3});
  GroupLinks links = only_links(topology.links_of(view, {}));
  CHECK(links.latency_us == 200);
  CHECK(links.mesh_mb_per_s == 500);
  topology.forget([](PeerId peer) { return peer == PeerId{1}; });
  links = only_links(topology.links_of(view, {}));
  CHECK(links.mesh_mb_per_s == 700);
  topology.learn({2}, {{{1}, 200, 0}});
  links = only_links(topology.links_of(view, {}));
  CHECK(links.mesh_mb_per_s == 0);
  CHECK(links.ring_mb_per_s == 0);
}

TEST_CASE("who knows nothing yet goes by the view before, less those who are gone") {
  View former = view_of({1, 2, 3, 4});
  former.links = {{group, 50, 50, 10, 100, {0, 2, 1, 3}}};
  const GroupLinks links = only_links(Topology().links_of(view_of({2, 3, 4, 5}), former));
  CHECK(links.mesh_mb_per_s == 10);
  // Peers 1 3 2 4 stood round the ring; 3 2 4 are left, and 5 has come.
  CHECK(links.ring == std::vector<std::uint8_t>{0, 2, 3, 1});
}

TEST_CASE("a group's ring is a permutation, or nothing is believed") {
  View view = view_of({1, 2, 3});
  CHECK(view.links_of(group) == nullptr);
  view.links = {{group, 1, 1, 1, 1, {}}};
  CHECK(view.links_of(group) != nullptr);
  view.links[0].ring = {2, 0, 1};
  CHECK(view.links_of(group) != nullptr);
  for (const std::vector<std::uint8_t>& ring :
       {std::vector<std::uint8_t>{0, 1}, {0, 1, 1}, {0, 1, 3}, {0, 1, 2, 0}}) {
    view.links[0].ring = ring;
    CHECK(view.links_of(group) == nullptr);
  }
}

TEST_CASE("small differences are not told") {
  const Say before = {{{1}, 100, 1000}};
  CHECK(differ_notably({}, before));
  CHECK(!differ_notably(before, before));
  CHECK(!differ_notably(before, {{{1}, 120, 900}}));
  CHECK(differ_notably(before, {{{1}, 130, 1000}}));
  CHECK(differ_notably(before, {{{1}, 100, 700}}));
  CHECK(differ_notably(before, {{{2}, 100, 1000}}));
  CHECK(differ_notably({{{1}, 100, 0}}, before));
}

TEST_CASE("rings are permutations, and never dearer than what they came from") {
  Prng prng(7);
  for (std::size_t places : {1, 2, 3, 4, 5, 9, 24}) {
    for (int round = 0; round < 20; ++round) {
      PairCosts costs(places);
      for (std::size_t a = 0; a < places; ++a) {
        for (std::size_t b = 0; b < a; ++b) costs.set(a, b, prng.between(1, 1000));
      }
      std::vector<std::size_t> begin(places);
      std::iota(begin.begin(), begin.end(), 0);
      const auto ring = cheaper_ring(costs, begin);
      CHECK(std::ranges::is_permutation(ring, begin));
      CHECK((ring == begin || cost_of(costs, ring) * 4 <= cost_of(costs, begin) * 3));
      CHECK(cheaper_ring(costs, ring) == ring);
    }
  }
}

TEST_CASE("the largest run is put in order in no time") {
  const std::size_t places = 256;
  PairCosts costs(places);
  for (std::size_t a = 0; a < places; ++a) {
    for (std::size_t b = 0; b < a; ++b) costs.set(a, b, a % 16 == b % 16 ? 1 : 1ull << 54);
  }
  std::vector<std::size_t> begin(places);
  std::iota(begin.begin(), begin.end(), 0);
  const auto ring = cheaper_ring(costs, begin);
  std::size_t crossings = 0;
  for (std::size_t i = 0; i < places; ++i) {
    crossings += ring[i] % 16 != ring[(i + 1) % places] % 16 ? 1 : 0;
  }
  CHECK(crossings <= 64);
}
