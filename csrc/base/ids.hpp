// Identities as distinct types: nothing converts silently, everything is ordered, so that no
// container of a decision depends on hashing.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace pyccl {

// One life of one process. Drawn at random when a peer starts and never used again; 0 is nobody.
struct PeerId {
  std::uint64_t value = 0;
  auto operator<=>(const PeerId&) const = default;
  explicit operator bool() const { return value != 0; }
};

// One run of one coordinator's state file; 0 is unknown.
struct RunId {
  std::uint64_t value = 0;
  auto operator<=>(const RunId&) const = default;
  explicit operator bool() const { return value != 0; }
};

// A group is named by users and known on the wire by a hash of its name: stable over views and
// restarts without anybody having to remember a table. The coordinator refuses a name whose hash
// another name already has; that hash has 32 bits.
//
// Some members of a group may be a subgroup, which nobody has to announce: who they are gives its
// id, whose upper half is never 0, so it is no group's.
struct GroupId {
  std::uint64_t value = 0;
  auto operator<=>(const GroupId&) const = default;
};

constexpr bool is_subgroup(GroupId id) { return id.value >> 32 != 0; }

constexpr GroupId group_id(std::string_view name) {
  std::uint32_t hash = 2166136261u;  // FNV-1a
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return {hash};
}

// Of these members of a group, in rank order. The name tells subgroups of the same members apart.
GroupId subgroup_id(GroupId group, std::span<const PeerId> members, std::string_view name);

// A peer's place in the present view of its group, or in its subgroup.
using Rank = std::int32_t;

// Number of a view. The incarnation rises with every start of the coordinator, the counter with
// every view (rule R3).
struct Epoch {
  std::uint32_t incarnation = 0;
  std::uint32_t counter = 0;
  auto operator<=>(const Epoch&) const = default;
  explicit operator bool() const { return incarnation != 0; }
};

// What an operation is called before it belongs to a view. Sequence numbers count per group and tag
// and survive view changes: an operation that restarts keeps its OpKey and gets another epoch.
struct OpKey {
  GroupId group;
  std::uint32_t tag = 0;
  std::uint32_t seq = 0;
  auto operator<=>(const OpKey&) const = default;
};

struct OpId {
  Epoch epoch;
  OpKey key;
  auto operator<=>(const OpId&) const = default;
};

std::string to_string(PeerId);  // 16 hex digits
std::string to_string(Epoch);   // "incarnation.counter"
std::string to_string(OpKey);   // "tag 0 #17", "tag 0 #17 of subgroup 5e2a..."
std::string to_string(OpId);    // "tag 0 #17 in view 1.4"

}  // namespace pyccl
