// The views that have ever been made durable, for checks.
#pragma once

#include <compare>
#include <map>
#include <utility>

#include "base/ids.hpp"
#include "protocol/view.hpp"

namespace pyccl::sim {

// Numbers of operations begin anew when a group has died out, so an operation is named with the
// view in which its group began.
struct OperationName {
  Epoch generation;
  OpKey key;
  auto operator<=>(const OperationName&) const = default;
};

class ByteHistory {
 public:
  void persisted(const protocol::View& view) {
    views_.try_emplace(view.epoch, view);
    for (const protocol::MemberInfo& member : view.members) {
      const GroupId group = group_id(member.group);
      const auto before = generations_.find({view.parent, group});
      generations_.try_emplace({view.epoch, group},
                               before == generations_.end() ? view.epoch : before->second);
    }
  }

  const protocol::View* view(Epoch epoch) const {
    const auto found = views_.find(epoch);
    return found == views_.end() ? nullptr : &found->second;
  }

  OperationName name(Epoch seen_in, OpKey key) const {
    const auto found = generations_.find({seen_in, key.group});
    return {found == generations_.end() ? Epoch{} : found->second, key};
  }

 private:
  std::map<Epoch, protocol::View> views_;
  std::map<std::pair<Epoch, GroupId>, Epoch> generations_;
};

}  // namespace pyccl::sim
