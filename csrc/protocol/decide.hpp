// What becomes of the operations of a view that ends: a pure function of the reports.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "protocol/limits.hpp"
#include "protocol/messages.hpp"
#include "protocol/view.hpp"

namespace pyccl::protocol {

struct Verdict {
  std::vector<Decision> decisions;           // open operations that none of them names restart
  Subgroups subgroups;                       // whom decisions speak of
  std::vector<NextSequence> next_sequences;  // where a joiner begins
  bool restarts = false;                     // there is such an operation
  // What must be decided does not fit into one view: leave this member out, which has the most
  // operations open, and decide anew. It takes dozens of members each of which alone waits for the
  // end of all the operations that it may have open.
  std::optional<PeerId> too_much;
};

// `reports` has one for each member that is kept; `lost` says of each other member what became of
// it ("died: connection refused"). Operations of a subgroup that has lost a member end with it:
// only those that are committed are named.
//
// The decisions that concern one member take `bytes` in a View at most. An operation that was
// committed, or that a loss ends, is decided in any case, or its outcome would differ between
// members. One that was refused can wait, for whoever refused it neither starts it again nor is
// silent about it: the next view decides it.
Verdict decide(const View& view, const std::map<PeerId, Report>& reports,
               const std::map<PeerId, std::string>& lost, std::size_t bytes = decisions_bytes_max);

}  // namespace pyccl::protocol
