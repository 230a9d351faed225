// The agreed membership and the decisions that end the view before it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"

namespace pyccl::protocol {

enum class Role : std::uint8_t { worker = PYCCL_WORKER, mirror = PYCCL_MIRROR };

// What numbers count by: a group or subgroup, and a tag.
using Numbering = std::pair<GroupId, std::uint32_t>;
constexpr Numbering numbering(OpKey op) { return {op.group, op.tag}; }

struct MemberInfo {
  PeerId peer;
  std::string group;  // name; its id is group_id(group)
  Role role = Role::worker;
  std::vector<std::string> addresses;  // where other peers may dial it, best first; none behind NAT
  bool operator==(const MemberInfo&) const = default;
};

// What became of an operation that was open when its view ended. Open operations that no decision
// names restart in the new view (rule R14).
enum class Outcome : std::uint8_t {
  committed,  // with the hint that those who committed saw
  failed,     // at every member with the same status, also at one that has not posted it yet
  withdrawn,  // only one member had posted it and gave it up (the peer of the status): the number
              // is free again there
};

struct Decision {
  OpKey op;
  Outcome outcome = Outcome::committed;
  bool hint = false;
  Status status;
  bool operator==(const Decision&) const = default;
};

// The next sequence number of a tag.
struct NextSequence {
  GroupId group;
  std::uint32_t tag = 0;
  std::uint32_t seq = 0;
  bool operator==(const NextSequence&) const = default;
};

enum class ViewKind : std::uint8_t {
  boundary,  // made by update(): may admit joiners
  loss,      // a member died or left
  decision,  // same members; ends operations that somebody refused
};

// Who a subgroup is, as it travels: places in a view's list of members, in rank order.
struct Subgroup {
  GroupId id;
  std::vector<std::uint8_t> places;
  bool operator==(const Subgroup&) const = default;
};
using Subgroups = std::map<GroupId, std::vector<PeerId>>;  // members in rank order

// What is known of the links within a group. It travels in the view because what members choose by
// it, each for itself, must be the same choice.
struct GroupLinks {
  GroupId group;
  std::uint32_t latency_us = 0;       // one way, between the two members that are farthest apart
  std::uint32_t ring_latency_us = 0;  // mean between neighbours of the ring
  std::uint32_t mesh_mb_per_s = 0;    // 1e6 bytes a second: the slowest link; 0: not known
  std::uint32_t ring_mb_per_s = 0;    // the slowest one between neighbours of the ring
  std::vector<std::uint8_t> ring;     // ranks in the order of the ring; empty: as numbered
  bool operator==(const GroupLinks&) const = default;
};

struct View {
  RunId run;
  Epoch epoch;
  Epoch parent;
  ViewKind kind = ViewKind::boundary;
  std::vector<MemberInfo> members;  // survivors keep their order, joiners stand behind them
  std::vector<Decision> decisions;
  std::vector<NextSequence> next_sequences;  // for joiners; of groups only
  // Those that decisions speak of. A member may not have used one yet, and must know when its
  // failures are to be forgotten.
  std::vector<Subgroup> subgroups;
  std::vector<GroupLinks> links;  // of groups of which something is known
  std::string reason;             // one sentence for the log
  bool operator==(const View&) const = default;

  const MemberInfo* find(PeerId) const;
  // Peers of a group in rank order.
  std::vector<PeerId> group_members(GroupId) const;
  std::optional<Rank> rank_of(PeerId) const;  // within the peer's own group
  // As they travel, less those peers that are no members; and back. No peers: it can't be a
  // subgroup of this view, for it names a place twice or beyond the members.
  std::vector<Subgroup> subgroups_of(const Subgroups&) const;
  std::vector<PeerId> peers_of(const Subgroup&) const;
  // nullptr: nothing is known, or what stands there can't be true.
  const GroupLinks* links_of(GroupId) const;
};

}  // namespace pyccl::protocol
