// Addresses as users write them, turned into what the transport takes. Names are looked up in the
// calling thread, which may take as long as the system's resolver does.
#pragma once

#include <string>
#include <vector>

#include "base/status.hpp"

namespace pyccl::runtime {

// All numeric addresses of "host:port" that this host can use, in the system's order of preference;
// at least one.
Result<std::vector<std::string>> resolve_all(const std::string& address);
Result<std::string> resolve_first(const std::string& address);

// Where a peer listens whose user said nothing: on the loopback if the coordinator is there, since
// then all peers are on this host; else on every interface, in the coordinator's address family.
std::string default_listen(const std::vector<std::string>& coordinator);

}  // namespace pyccl::runtime
