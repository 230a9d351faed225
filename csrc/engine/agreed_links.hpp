// The links of a group as its view has them: what all members choose algorithms by.
#pragma once

#include <vector>

#include "base/ids.hpp"
#include "collectives/select.hpp"
#include "protocol/view.hpp"

namespace pyccl::engine {

class AgreedLinks {
 public:
  void install(const protocol::View& view, GroupId group);
  // Among those who take part in an operation, in rank order: the group, or some of it. Valid until
  // the next call.
  const collectives::Links& among(const std::vector<PeerId>& ranks);

 private:
  std::vector<PeerId> group_;  // in rank order
  std::vector<PeerId> ring_;   // empty: the same
  collectives::Links whole_;
  collectives::Links some_;
};

}  // namespace pyccl::engine
