// Operations that failed before this member posted them: the others agreed on that, and it fails at
// once when its turn comes.
//
// Somebody who is far behind has many of them. Only the newest reasons are kept; that a number has
// failed is never forgotten, in ranges, of which there are few: between two ranges lies a number
// that is still open at whoever posted the later one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "protocol/view.hpp"

namespace pyccl::protocol {

class Failures {
 public:
  void add(OpKey op, const Status& status);
  // The failure of this operation, if it has failed; it is forgotten then.
  std::optional<Status> take(OpKey op);
  bool contains(OpKey op) const;
  // Numbers below this one will not be posted any more.
  void drop_below(OpKey op);
  void drop(GroupId group);

  // For each tag of the group: behind the last failure.
  std::vector<NextSequence> ends(GroupId group) const;
  std::size_t reason_count() const { return reasons_.size(); }

 private:
  using Ranges = std::map<std::uint32_t, std::uint32_t>;  // first number, and behind the last

  void forget_oldest();
  bool without_reason(OpKey op) const;

  std::map<OpKey, Status> reasons_;
  std::map<Numbering, Ranges> without_reason_;
};

}  // namespace pyccl::protocol
