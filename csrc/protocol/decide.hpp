// What becomes of the operations of a view that ends: a pure function of the reports.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "protocol/messages.hpp"
#include "protocol/view.hpp"

namespace pyccl::protocol {

struct Verdict {
  std::vector<Decision> decisions;           // open operations that none of them names restart
  std::vector<NextSequence> next_sequences;  // where a joiner begins
  bool restarts = false;                     // there is such an operation
};

// `reports` has one for each member that is kept; `lost` says of each other member what became of
// it ("died: connection refused").
Verdict decide(const View& view, const std::map<PeerId, Report>& reports,
               const std::map<PeerId, std::string>& lost);

}  // namespace pyccl::protocol
