// What the users of one group call, as pure functions of what they all know: so they agree, unless
// their views differ.
#pragma once

#include <cstdint>
#include <vector>

#include "protocol/member.hpp"
#include "sim/protocol/swarm.hpp"

namespace pyccl::sim {

// Who calls.
struct Calling {
  const Swarm& swarm;
  const protocol::Member& member;
  GroupId group;
};

// The next operation of this tag.
protocol::Call group_call(const Calling& caller, std::uint32_t tag);

// Operations of subgroups that come with this number of the first tag. A subgroup is used with few
// numbers: if its members have lost step in its own, the next one is a new beginning.
inline constexpr std::uint32_t subgroup_window = 3;
std::vector<protocol::Call> subgroup_calls(const Calling& caller, std::uint32_t seq);

}  // namespace pyccl::sim
