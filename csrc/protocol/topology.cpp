// From pairs to groups. Costs of pairs are rounded to powers of four, so that only what differs
// much changes the order of a ring, and one slow hop outweighs many quick ones.
#include "protocol/topology.hpp"

#include <algorithm>
#include <bit>
#include <set>

#include "base/mark.hpp"
#include "protocol/ring_order.hpp"

namespace pyccl::protocol {
namespace {

// What stands for two peers on one host.
constexpr std::uint32_t near_latency_us = 25;
constexpr std::uint32_t near_mb_per_s = 3000;

bool notable(std::uint32_t before, std::uint32_t now) {
  const std::uint64_t larger = std::max(before, now);
  const std::uint64_t smaller = std::min(before, now);
  return larger * 4 > smaller * 5;
}

std::uint32_t median(std::vector<std::uint32_t> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

// Ranks of `ranks` in the order of the ring that `former` had, and behind them those that are new.
std::vector<std::size_t> former_order(GroupId group, const std::vector<PeerId>& ranks,
                                      const View& former) {
  std::vector<PeerId> order = former.group_members(group);
  if (const GroupLinks* links = former.links_of(group); links && !links->ring.empty()) {
    std::vector<PeerId> ring;
    for (const std::uint8_t rank : links->ring) ring.push_back(order[rank]);
    order = std::move(ring);
  }
  std::vector<std::size_t> places;
  std::vector<bool> placed(ranks.size());
  const auto place = [&](PeerId peer) {
    const auto rank = static_cast<std::size_t>(std::ranges::find(ranks, peer) - ranks.begin());
    if (rank >= ranks.size() || placed[rank]) return;
    placed[rank] = true;
    places.push_back(rank);
  };
  for (const PeerId peer : order) place(peer);
  for (const PeerId peer : ranks) place(peer);
  return places;
}

// As it travels: beginning with rank 0; empty if it is that of the ranks.
std::vector<std::uint8_t> written(std::vector<std::size_t> ring) {
  std::ranges::rotate(ring, std::ranges::find(ring, std::size_t{0}));
  std::vector<std::uint8_t> ranks;
  bool as_numbered = true;
  for (const std::size_t rank : ring) {
    as_numbered = as_numbered && rank == ranks.size();
    ranks.push_back(static_cast<std::uint8_t>(rank));
  }
  if (as_numbered) ranks.clear();
  return ranks;
}

// Rounded microseconds for a MiB there.
std::uint64_t cost_of(std::uint32_t latency_us, std::uint32_t mb_per_s) {
  constexpr std::uint64_t bytes = 1 << 20;
  const std::uint64_t time = latency_us + (mb_per_s > 0 ? bytes / mb_per_s : 0);
  constexpr int width_max = 27;  // of 256 hops the sum still fits
  return std::uint64_t{1} << 2 * std::min(static_cast<int>(std::bit_width(time)), width_max);
}

}  // namespace

bool differ_notably(const std::vector<MeasuredLink>& told, const std::vector<MeasuredLink>& now) {
  return !std::ranges::equal(told, now, [](const MeasuredLink& a, const MeasuredLink& b) {
    return a.peer == b.peer && !notable(a.latency_us, b.latency_us) &&
           !notable(a.mb_per_s, b.mb_per_s);
  });
}

void Topology::learn(PeerId from, const std::vector<MeasuredLink>& links) {
  auto& known = said_[from];
  known.clear();
  for (const MeasuredLink& link : links) known[link.peer] = link;
}

Topology::Pair Topology::pair_of(PeerId a, PeerId b) const {
  Pair pair;
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    const auto of = said_.find(from);
    if (of == said_.end()) continue;
    const auto found = of->second.find(to);
    if (found == of->second.end()) continue;
    const MeasuredLink& link = found->second;
    if (link.latency_us == 0) return {true, true, near_latency_us, near_mb_per_s};
    pair.latency_us = pair.known ? std::min(pair.latency_us, link.latency_us) : link.latency_us;
    // A ring needs one of the two directions, and which one is not known here.
    if (link.mb_per_s > 0) {
      pair.mb_per_s = pair.mb_per_s > 0 ? std::min(pair.mb_per_s, link.mb_per_s) : link.mb_per_s;
    }
    pair.known = true;
  }
  return pair;
}

Topology::Pairs Topology::pairs_of(const std::vector<PeerId>& ranks) const {
  const std::size_t count = ranks.size();
  Pairs pairs{count, std::vector<Pair>(count * count), {}, {}};
  for (std::size_t a = 0; a < count; ++a) {
    for (std::size_t b = a + 1; b < count; ++b) {
      const Pair pair = pairs.at(a, b) = pairs.at(b, a) = pair_of(ranks[a], ranks[b]);
      if (!pair.known || pair.near) continue;
      pairs.latencies.push_back(pair.latency_us);
      if (pair.mb_per_s > 0) pairs.rates.push_back(pair.mb_per_s);
    }
  }
  // The others are taken to be like most.
  const Pair usual{true, false, median(pairs.latencies), median(pairs.rates)};
  for (Pair& pair : pairs.all) {
    if (!pair.known) pair.latency_us = usual.latency_us;
    if (pair.mb_per_s == 0) pair.mb_per_s = usual.mb_per_s;
  }
  return pairs;
}

std::optional<GroupLinks> Topology::links_within(GroupId group, const std::vector<PeerId>& ranks,
                                                 const View& former) const {
  Pairs pairs = pairs_of(ranks);
  std::vector<std::size_t> ring = former_order(group, ranks, former);
  if (pairs.latencies.empty()) {
    // Nobody has said anything yet, as behind a restart: what the members go by stays.
    const GroupLinks* known = former.links_of(group);
    if (known == nullptr || ranks.size() < 2) return std::nullopt;
    PYCCL_MARK("links of the former view kept");
    GroupLinks links = *known;
    links.ring = written(std::move(ring));
    return links;
  }
  PairCosts costs(pairs.count);
  for (std::size_t a = 0; a < pairs.count; ++a) {
    for (std::size_t b = a + 1; b < pairs.count; ++b) {
      costs.set(a, b, cost_of(pairs.at(a, b).latency_us, pairs.at(a, b).mb_per_s));
    }
  }
  ring = cheaper_ring(costs, std::move(ring));
  GroupLinks links;
  links.group = group;
  links.latency_us = *std::ranges::max_element(pairs.latencies);
  if (!pairs.rates.empty()) links.mesh_mb_per_s = *std::ranges::min_element(pairs.rates);
  std::uint64_t latencies = 0;
  links.ring_mb_per_s = near_mb_per_s;
  for (std::size_t i = 0; i < pairs.count; ++i) {
    const Pair& hop = pairs.at(ring[i], ring[(i + 1) % pairs.count]);
    latencies += hop.latency_us;
    links.ring_mb_per_s = std::min(links.ring_mb_per_s, hop.mb_per_s);
  }
  links.ring_latency_us =
      static_cast<std::uint32_t>(std::max<std::uint64_t>(latencies / pairs.count, 1));
  links.ring = written(std::move(ring));
  if (!links.ring.empty()) PYCCL_MARK("a ring in another order than the ranks");
  return links;
}

std::vector<GroupLinks> Topology::links_of(const View& next, const View& former) const {
  std::set<GroupId> groups;
  for (const MemberInfo& member : next.members) groups.insert(group_id(member.group));
  std::vector<GroupLinks> all;
  for (const GroupId group : groups) {
    if (auto links = links_within(group, next.group_members(group), former)) {
      all.push_back(std::move(*links));
    }
  }
  return all;
}

}  // namespace pyccl::protocol
