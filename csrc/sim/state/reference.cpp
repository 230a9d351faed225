// See reference.hpp.
#include "sim/state/reference.hpp"

#include <algorithm>

namespace pyccl::sim {
namespace {

using Members = std::vector<StateSeen>;

// The one that beats all others; a state that is sent only is not beaten by numbers.
std::size_t most_popular(const Members& members, std::uint64_t revision) {
  std::size_t best = members.size();
  std::ptrdiff_t most = 0;
  for (std::size_t i = members.size(); i-- > 0;) {
    if (!members[i].may_send() || members[i].revision != revision) continue;
    const auto votes = std::ranges::count_if(
        members, [&](const StateSeen& each) { return each.whole && each.same_as(members[i]); });
    if (votes < most) continue;  // from the last rank down: of equals the lowest stays
    most = votes;
    best = i;
  }
  return best;
}

}  // namespace

std::optional<std::size_t> winner_of(const Members& members) {
  std::optional<std::uint64_t> revision;
  for (const StateSeen& each : members) {
    if (each.may_send()) revision = std::max(revision.value_or(0), each.revision);
  }
  if (!revision) return std::nullopt;
  std::vector<std::size_t> only;
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (members[i].strategy == protocol::Strategy::send_only) only.push_back(i);
  }
  for (std::size_t i : only) {
    const StateSeen& each = members[i];
    const bool wins = each.whole && each.revision == *revision && each.same_as(members[only[0]]);
    if (!wins) return std::nullopt;
  }
  for (const StateSeen& each : members) {
    if (each.expected && *each.expected != *revision) return std::nullopt;
  }
  return only.empty() ? most_popular(members, *revision) : only.front();
}

}  // namespace pyccl::sim
