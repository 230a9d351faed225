// From a caller's request to what the Member numbers.
#pragma once

#include <vector>

#include "base/ids.hpp"
#include "engine/request.hpp"
#include "protocol/member.hpp"

namespace pyccl::engine {

// Who takes part, as one id; `group` is this peer's own.
GroupId group_of(const Request& request, GroupId group);

// The members of a send, in rank order.
std::vector<PeerId> pair_of(PeerId sender, PeerId receiver);

// Who the root is at present; nobody if the collective has none, or the number is no rank's.
PeerId root_of(const Request& request, const std::vector<PeerId>& ranks);

// Descriptor and weight are the operation's; `ranks` take part.
protocol::Call call_of(const Request& request, GroupId group, PeerId self,
                       const std::vector<PeerId>& ranks);

}  // namespace pyccl::engine
