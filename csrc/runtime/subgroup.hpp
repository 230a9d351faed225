// Some members of a group, as a caller names them: by ranks. Nothing is sent when a subgroup is
// made; those that take part in its operations have named the same members in the same order.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "engine/request.hpp"
#include "runtime/communicator.hpp"

namespace pyccl::runtime {

struct Subgroup {
  std::vector<PeerId> members;  // in rank order
  std::string name;             // tells subgroups of the same members apart
  Rank rank = -1;               // the caller's own

  // Whether all of them are among the members of the group.
  bool within(const std::vector<PeerId>& group) const;
  // The request is for these members instead of the whole group.
  void apply(engine::Request& request) const;
};

// Of those ranks of `peers` (a group or a subgroup, in rank order), in the order in which they are
// given. Refused: no ranks, a rank that does not exist or comes twice, ranks without the caller.
Result<Subgroup> subgroup_of(const std::vector<PeerId>& peers, PeerId self,
                             const std::vector<Rank>& ranks, std::string_view name);

enum class PairRole { sender, receiver, partner };

// The caller and one more of `peers`, for one send (the sender is rank 0) or exchange. Apart from
// all subgroups that callers name, and from pairs of subgroups with another name than `within`.
// Refused: no such rank, or a message to oneself. A rank that there was when there were
// `members_most` counts as a lost peer: how soon the view shrinks is no fault of the caller's.
Result<Subgroup> pair_of(const std::vector<PeerId>& peers, std::size_t members_most, PeerId self,
                         PairRole role, Rank other, std::string_view within);

// Instead of a sender's rank, at its receiver.
inline constexpr Rank any_source = -1;

// Makes the request the caller's side of a pair with the member of the view, or of the subgroup if
// there is one, that has that rank. Refused like a pair; a receiver from any source where there is
// nobody else, or nobody any more.
Status ask_pair(engine::Request& request, const ViewSnapshot& view, const Subgroup* subgroup,
                PeerId self, PairRole role, Rank other);

// What runs between the two. With oneself an exchange is a copy, as a gathering of one is.
collectives::Kind kind_of(PairRole role, const Subgroup& pair);

}  // namespace pyccl::runtime
