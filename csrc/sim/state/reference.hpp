// Which state has to win, found in the plainest way: from the members' bits, not from digests, and
// with code of its own.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "protocol/shared_state.hpp"

namespace pyccl::sim {

// What a member had when it looked.
struct StateSeen {
  PeerId peer;
  protocol::Strategy strategy = protocol::Strategy::popular;
  bool whole = true;
  std::uint64_t revision = 0;
  std::optional<std::uint64_t> expected;
  Bytes bits;

  bool may_send() const { return whole && strategy != protocol::Strategy::receive_only; }
  bool same_as(const StateSeen& other) const {
    return revision == other.revision && bits == other.bits;
  }
};

// By rank. Which of them has what all shall have; none: no state can win.
std::optional<std::size_t> winner_of(const std::vector<StateSeen>& members);

}  // namespace pyccl::sim
