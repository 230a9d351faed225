// Which of the members' states all of them shall have: a decision that every member takes by
// itself, from the same reports, and so alike.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/digest.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"

namespace pyccl::protocol {

enum class Strategy : std::uint8_t {
  popular = PYCCL_POPULAR,
  send_only = PYCCL_SEND_ONLY,
  receive_only = PYCCL_RECEIVE_ONLY
};

// What a member says of its state; one of each makes an election.
struct StateReport {
  PeerId peer;
  Strategy strategy = Strategy::popular;
  bool whole = true;  // false: a sync that failed has left it half overwritten
  std::uint64_t revision = 0;
  std::optional<std::uint64_t> expected;  // the one revision that it takes
  Digest schema;                          // of names, types and shapes
  std::uint32_t schema_bytes = 0;
  Digest content;  // of schema and bits
  bool operator==(const StateReport&) const = default;
};

inline constexpr std::size_t state_report_bytes = 64;
void store(std::byte* at, const StateReport&);
Result<StateReport> load_state_report(const std::byte* at);

struct Election {
  std::uint64_t revision = 0;
  Digest content;
  std::vector<Rank> holders;  // who has these bits and may send them
};

// By rank; schemas are equal. The highest revision that a member may send; of unlike states of that
// revision the one that is sent only, else the one that most members have, else that of the lowest
// rank.
//
// Refused, with a text that names the ranks: nobody may send; those that only send disagree, or
// somebody may send a higher revision than theirs; the elected revision is not the one expected.
Result<Election> elect(std::span<const StateReport> reports);

// "rank 2 (peer 00f3...)".
std::string name_of(std::span<const StateReport> reports, Rank rank);

}  // namespace pyccl::protocol
