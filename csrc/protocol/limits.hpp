// Every bound of the protocol, and the timing that both machines share.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "base/bytes.hpp"
#include "base/time.hpp"

namespace pyccl::protocol {

inline constexpr std::uint32_t version = 5;
inline constexpr std::size_t members_max = 256;
inline constexpr std::size_t joiners_max = 256;
inline constexpr std::size_t operations_open_max = 1024;  // per member, over all tags
inline constexpr std::size_t tags_max = 4096;             // per member and run, over all groups
inline constexpr std::size_t subgroups_max = 2048;        // per member, of those that still hold
inline constexpr std::size_t parts_max = 12;              // of a descriptor: one per data type
inline constexpr std::size_t name_bytes_max = 256;        // group names
inline constexpr std::size_t reason_bytes_max = 1024;     // texts that travel; longer ones are cut
inline constexpr std::size_t addresses_max = 8;
inline constexpr std::size_t memory_text_bytes_max =
    256;  // an offer of shared memory, or an answer
inline constexpr std::size_t address_bytes_max = 256;
inline constexpr std::size_t operation_reason_bytes_max =
    384;  // of one operation: many travel in one message
inline constexpr std::size_t committed_kept_max =
    2048;  // remembered by a member for reports of the present view
inline constexpr std::size_t reported_max = operations_open_max + committed_kept_max;
inline constexpr std::size_t awaited_max = 8;
inline constexpr std::size_t held_max =
    4 * operations_open_max;  // messages of a later view, per peer

// Of the members of a View with all their names and addresses.
inline constexpr std::size_t members_bytes_max =
    members_max * (name_bytes_max + addresses_max * (address_bytes_max + 2) + 16);
// What is known of the links of all groups, of which there may be as many as members.
inline constexpr std::size_t links_bytes_max = members_max * (28 + 1);
// The first message on a connection, when nobody knows yet who sends it: Register or Hello at a
// coordinator, Link at a peer.
inline constexpr std::size_t register_bytes_max = members_bytes_max + links_bytes_max + 1024;
inline constexpr std::size_t link_bytes_max = 1024;

// Of a number that counts in a group and tag; of a subgroup, whose members have places in one byte.
inline constexpr std::size_t next_sequence_bytes = 16;
inline constexpr std::size_t subgroup_bytes = 12;  // without its members
inline constexpr std::size_t subgroup_bytes_max = subgroup_bytes + members_max;
static_assert(members_max <= 256);

// The largest message is a View: all members with all their addresses, a number per tag, and the
// decisions of one member's group and subgroups, which get what the others leave. Decisions that do
// not fit wait for the next view where they can (decide.hpp).
inline constexpr std::size_t decisions_bytes_max =
    message_bytes_max - members_bytes_max - links_bytes_max - tags_max * next_sequence_bytes -
    reason_bytes_max - 64;
inline constexpr std::size_t decision_bytes = 52;  // of one with a text of up to 23 bytes
inline constexpr std::size_t refusal_bytes =
    decision_bytes + operation_reason_bytes_max + subgroup_bytes_max;
inline constexpr std::size_t decisions_max = decisions_bytes_max / decision_bytes;
// Those that can't wait leave room for one that can, so each view gets on with the others. So many,
// if no subgroup has to be described.
inline constexpr std::size_t decisions_certain_max =
    (decisions_bytes_max - refusal_bytes) / decision_bytes;
static_assert(decisions_certain_max > 16 * operations_open_max);

// A Report: what is open may carry a reason.
static_assert(reported_max * (38 + operation_reason_bytes_max) +
                  2 * tags_max * next_sequence_bytes + subgroups_max * subgroup_bytes_max + 64 <
              message_bytes_max);

struct Timing {
  Duration heartbeat_limit = 4s;  // silence after which a peer counts as dead
  Duration reconnect_grace = 2s;  // for a reachable peer whose control connection broke
  Duration recovery_limit =
      10s;  // a restarted coordinator waits so long for the members of its last view
  Duration prepare_limit = 5s;  // to reach the joiners of a view
  // So long a member goes on without a coordinator; as good as for ever.
  Duration coordinator_limit = 24h * 365 * 100;
  // Two living members without any connection; see also cut_off_limit().
  Duration link_limit = 10s;
  // After a deadline, for the coordinator's decision; then the outcome is unknown. No less than it
  // needs to notice two deaths, one after the other.
  Duration decision_limit = 10s;
  Duration heartbeat_interval() const { return heartbeat_limit / 5; }
  Duration decision_limit_with(Duration heartbeats) const {
    return std::max(decision_limit, heartbeats * 5 / 2);
  }
  // A connection on which nothing moves, and two members without any, are given up no sooner than
  // heartbeats have told whether one of them hangs.
  Duration silence_limit() const { return std::clamp<Duration>(heartbeat_limit * 3 / 2, 10s, 1h); }
  Duration cut_off_limit() const { return std::max(link_limit, heartbeat_limit * 3 / 2); }
};

}  // namespace pyccl::protocol
