// See checks.hpp. By name:
//
//   alike        all survivors end with the same code, reason, numbers and knowledge
//   winner       undisturbed, that state wins which the reference says, or none if it says so
//   bits         whoever succeeds has exactly one reported state, under its revision
//   strategy     who only receives sends no block, who only sends is never written
//   harm         never is a block anything but what it was or what somebody had reported
//   void         after a failure all is old, or all is new, or the state says what is void
//   lockstep     all call the same operations
//   liveness     the sync ends
//   refusal      a sync fails only for a reason that exists
//   refuted      who sends other bits than it has reported is known to all
//   memory       no more is under way, and no more at once, than the options say
//   thrift       nothing is fetched twice, and nothing that all have
#include "sim/state/checks.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/digest.hpp"
#include "sim/state/world.hpp"

namespace pyccl::sim {
namespace {

using engine::SyncInfo;
using protocol::Strategy;

std::string without_own_part(const std::string& reason) {
  return reason.substr(0, reason.find(". Here parts of "));
}

ByteView block_of(const engine::SharedState& state, const Bytes& bits, std::size_t index) {
  std::size_t at = 0;
  for (std::size_t i = 0; i < index; ++i) at += state.block_bytes()[i];
  return ByteView(bits).subspan(at, state.block_bytes()[index]);
}

struct Difference {
  std::uint64_t blocks = 0;
  std::uint64_t bytes = 0;
};

Difference difference(const engine::SharedState& state, const Bytes& a, const Bytes& b) {
  Difference difference;
  std::size_t at = 0;
  for (const std::uint32_t size : state.block_bytes()) {
    if (std::memcmp(&a[at], &b[at], size) != 0) {
      ++difference.blocks;
      difference.bytes += size;
    }
    at += size;
  }
  return difference;
}

}  // namespace

std::vector<StateMember*> StateChecks::survivors() const { return world_.living(); }

StateSeen StateChecks::look(const StateMember& member) const {
  StateSeen seen;
  seen.peer = member.peer();
  seen.strategy = member.options().strategy;
  seen.whole = member.state().whole();
  seen.revision = member.state().revision();
  if (member.options().expect_next) seen.expected = member.state().next_revision();
  seen.bits = member.bits();
  return seen;
}

void StateChecks::round_begins() {
  old_.clear();
  candidates_.clear();
  first_.clear();
  quiet_ = true;
}

void StateChecks::digested(const StateMember& member) {
  const StateSeen seen = look(member);
  if (seen.may_send()) candidates_.push_back(seen);
  if (old_.contains(member.peer())) return;
  old_[member.peer()].seen = seen;
  first_.push_back(seen);
}

void StateChecks::lied(const StateMember& member, std::size_t block) {
  quiet_ = false;
  Old& old = old_.at(member.peer());
  old.lied = true;
  const ByteView now = member.state().block(block);
  const ByteView before = block_of(member.state(), old.seen.bits, block);
  std::copy(now.begin(), now.end(), old.seen.bits.data() + (before.data() - old.seen.bits.data()));
}

bool StateChecks::all_schemas_equal() const {
  const auto members = survivors();
  return std::ranges::all_of(members, [&](const StateMember* member) {
    return member->state().schema_digest() == members.front()->state().schema_digest();
  });
}

void StateChecks::posts(const StateMember& member, const engine::Request& request) {
  if (request.kind != collectives::Kind::all_to_all) return;
  const engine::SyncOptions& options = member.options();
  const std::uint64_t room =
      std::max<std::uint64_t>(options.window_bytes, world_.swarm.block_bytes);
  if (member.open() >= options.windows_ahead || request.arrays.front().output_count > room) {
    return world_.fail("memory", member.name() + " has more under way than it may");
  }
  const auto gives = [](std::uint64_t share) { return share > 0; };
  if (member.options().strategy != Strategy::receive_only) return;
  if (std::ranges::none_of(request.send_shares, gives)) return;
  world_.fail("strategy", member.name() + " is receive_only, and sends");
}

// `bytes`: of blocks that it has received.
void StateChecks::ended(const StateMember& member, const Status& status, std::uint64_t bytes) {
  if (status.ok()) old_.at(member.peer()).received += bytes;
}

// Block by block, for what has come in part is a mixture.
void StateChecks::acted(const StateMember& member) {
  const auto found = old_.find(member.peer());
  if (found == old_.end()) return;
  const Bytes& old = found->second.seen.bits;
  const Bytes now = member.bits();
  if (now == old) return;
  if (member.options().strategy == Strategy::send_only) {
    return world_.fail("strategy", member.name() + " is send_only, and has been written");
  }
  std::size_t at = 0;
  for (std::size_t i = 0; i < member.state().block_count(); ++i) {
    const std::size_t size = member.state().block_bytes()[i];
    const auto like = [&](const Bytes& bits) {
      return bits.size() == now.size() && std::memcmp(&bits[at], &now[at], size) == 0;
    };
    const auto reported = [&](const StateSeen& seen) { return like(seen.bits); };
    if (!like(old) && std::ranges::none_of(candidates_, reported)) {
      return world_.fail("harm", member.name() + ": block " + std::to_string(i) +
                                     " is neither what it was nor what anybody has");
    }
    at += size;
  }
}

const StateSeen* StateChecks::candidate_like(const StateMember& member) const {
  const Bytes bits = member.bits();
  for (const StateSeen& each : candidates_) {
    if (each.bits == bits && each.revision == member.state().revision()) return &each;
  }
  return nullptr;
}

void StateChecks::round_over(bool somebody_died) {
  const auto members = survivors();
  for (const StateMember* member : members) {
    if (!member->over()) return world_.fail("liveness", member->name() + " waits for ever");
  }
  if (members.empty()) return;
  check_ends_alike(members);
  check_winner(somebody_died);
  for (const StateMember* member : members) {
    if (!world_.running()) return;
    const Status& status = member->sync().status();
    world_.say(member->name() + (status.ok() ? " has synced" : ": " + status.reason()));
    world_.trace.fold(member->sync().info().digest.low);
    if (status.ok()) {
      check_success(*member);
      check_amounts(*member);
      check_refuted(*member);
    } else {
      check_failure(*member);
      check_staging(*member);
      check_refusal(*member);
    }
  }
}

void StateChecks::check_ends_alike(const std::vector<StateMember*>& members) {
  const StateMember& first = *members.front();
  const SyncInfo& info = first.sync().info();
  const auto revisions = [](const SyncInfo& of) {
    std::vector<std::pair<PeerId, std::uint64_t>> all;
    for (const SyncInfo::Behind& each : of.behind) all.emplace_back(each.peer, each.revision);
    return all;
  };
  for (const StateMember* member : members) {
    const Status& status = member->sync().status();
    const SyncInfo& other = member->sync().info();
    const std::string both = first.name() + " and " + member->name();
    if (status.code() != first.sync().status().code() ||
        without_own_part(status.reason()) != without_own_part(first.sync().status().reason())) {
      return world_.fail("alike", both + " end differently: '" + first.sync().status().reason() +
                                      "' and '" + status.reason() + "'");
    }
    if (member->next_number != first.next_number) {
      return world_.fail("lockstep", both + " have posted different numbers of operations");
    }
    if (other.digest != info.digest || other.revision != info.revision ||
        other.peers != info.peers || other.attempts != info.attempts ||
        other.refuted != info.refuted || revisions(other) != revisions(info)) {
      return world_.fail("alike", both + " know different things of the same sync");
    }
  }
}

// Only of a sync in which the first report counts.
void StateChecks::check_winner(bool somebody_died) {
  const StateMember& any = *survivors().front();
  const engine::StateSync& sync = any.sync();
  if (world_.operations.disturbed() || !quiet_ || !all_schemas_equal()) return;
  const bool first_counts = sync.status().ok() ? sync.info().attempts == 1 : !somebody_died;
  if (!first_counts) return;
  std::ranges::sort(first_, {}, &StateSeen::peer);
  if (sync.status().ok()) {
    // Somebody may have died before the report was there.
    const std::vector<PeerId>& peers = sync.info().peers;
    std::erase_if(first_, [&](const StateSeen& seen) {
      return std::ranges::find(peers, seen.peer) == peers.end();
    });
  }
  const auto winner = winner_of(first_);
  if (sync.status().code() == Code::limit_exceeded) return;
  if (winner.has_value() != sync.status().ok()) {
    return world_.fail("winner", winner ? "nobody wins: " + sync.status().reason()
                                        : "a state wins where none can");
  }
  if (!winner) return;
  const StateSeen& expected = first_[*winner];
  if (sync.info().revision == expected.revision && any.bits() == expected.bits) return;
  world_.fail("winner", "the state of p" + std::to_string(expected.peer.value) + ", revision " +
                            std::to_string(expected.revision) + ", should have won, but revision " +
                            std::to_string(sync.info().revision) + " has");
}

void StateChecks::check_success(const StateMember& member) {
  const engine::SharedState& state = member.state();
  if (!all_schemas_equal()) return world_.fail("bits", "states of different schemas are one");
  if (!state.whole()) return world_.fail("void", member.name() + " has void tensors");
  if (state.revision() != member.sync().info().revision ||
      state.next_revision() != state.revision() + 1) {
    return world_.fail("bits", member.name() + " has another revision than it says");
  }
  if (!old_.at(member.peer()).lied && state.digest() != member.sync().info().digest) {
    return world_.fail("bits", member.name() + " has another digest than it says");
  }
  check_bits(member);
}

// What a liar has written itself may stay with it; nobody else may have it.
void StateChecks::check_bits(const StateMember& member) {
  const Bytes bits = member.bits();
  const bool lied = old_.at(member.peer()).lied;
  const auto digest_of = [&](const Bytes& of) {
    std::vector<Digest> blocks;
    for (std::size_t i = 0; i < member.state().block_count(); ++i) {
      blocks.push_back(kernels::digest_of(block_of(member.state(), of, i)));
    }
    return member.state().digest_with(blocks);
  };
  const auto wins = [&](const StateSeen& seen) {
    return seen.revision == member.state().revision() && seen.bits.size() == bits.size() &&
           digest_of(seen.bits) == member.sync().info().digest;
  };
  const auto elected = std::ranges::find_if(candidates_, wins);
  if (elected == candidates_.end()) {
    return world_.fail("bits", "nobody has reported what " + member.name() + " has synced to");
  }
  if (!lied && elected->bits != bits) {
    world_.fail("bits", member.name() + " has other bits than the elected ones");
  }
}

// Where one state alone was ever to be had, what has come stays over deaths too.
void StateChecks::check_amounts(const StateMember& member) {
  if (!quiet_) return;
  const SyncInfo& info = member.sync().info();
  const Bytes& bits = candidates_.front().bits;
  const bool one_only =
      std::ranges::all_of(candidates_, [&](const StateSeen& each) { return each.bits == bits; });
  if (info.attempts > 1 && !one_only) return;
  const bool all_alike = std::ranges::all_of(
      first_, [&](const StateSeen& each) { return each.bits == first_.front().bits; });
  if (all_alike && info.attempts == 1 && member.posted() > 1) {
    return world_.fail("thrift", "a report is not enough where all have the same");
  }
  const Bytes& old = old_.at(member.peer()).seen.bits;
  const std::uint64_t lacked = difference(member.state(), old, member.bits()).blocks;
  std::uint64_t bytes = 0;
  for (const SyncInfo::Source& source : info.sources) bytes += source.bytes;
  if (info.blocks_fetched == lacked && bytes == info.bytes_fetched) return;
  world_.fail("thrift", member.name() + " lacked " + std::to_string(lacked) +
                            " blocks and has fetched " + std::to_string(info.blocks_fetched));
}

// Wrong bits that have come are told to all, once there is nothing else to tell.
void StateChecks::check_refuted(const StateMember& member) {
  const SyncInfo& info = member.sync().info();
  const bool wrong = old_.at(member.peer()).received != info.bytes_fetched;
  if (info.attempts > 1 || wrong == !info.refuted.empty()) return;
  if (!wrong && !quiet_) return;  // another member's
  world_.fail("refuted", wrong ? "wrong bits came to " + member.name() + ", and nobody is refuted"
                               : "somebody is refuted who has told the truth");
}

void StateChecks::check_failure(const StateMember& member) {
  const Old& old = old_.at(member.peer());
  const engine::SharedState& state = member.state();
  const Bytes now = member.bits();
  const bool as_before = now == old.seen.bits && state.revision() == old.seen.revision;
  if (state.whole()) {
    // It may have been void, and be all new now; but old, it can't have become whole.
    if ((as_before && old.seen.whole) || old.lied || candidate_like(member) != nullptr) return;
    return world_.fail("void", member.name() + " is neither old nor new after a failure: " +
                                   member.sync().status().reason());
  }
  const std::vector<std::string> names = state.void_tensors();
  const auto rest_is = [&](const StateSeen& seen) {
    if (state.revision() != seen.revision || now.size() != seen.bits.size()) return false;
    std::size_t at = 0;
    return std::ranges::all_of(state.tensors(), [&](const engine::Tensor& tensor) {
      const std::size_t begin = std::exchange(at, at + tensor.bytes);
      const bool same =
          tensor.bytes == 0 || std::memcmp(&now[begin], &seen.bits[begin], tensor.bytes) == 0;
      return same || std::ranges::find(names, tensor.name) != names.end();
    });
  };
  // Or it had all of one state, before it got parts of another.
  if (!old.lied && !rest_is(old.seen) && std::ranges::none_of(candidates_, rest_is)) {
    return world_.fail("void", member.name() + ": tensors have changed that are not called void");
  }
  if (member.sync().status().reason().find("Here parts of '" + names.front() + "'") ==
      std::string::npos) {
    world_.fail("void", member.name() + " does not say which tensors are void");
  }
}

// What fits into the memory for it is written when all of it is there.
void StateChecks::check_staging(const StateMember& member) {
  const Old& old = old_.at(member.peer());
  if (member.state().whole() || !old.seen.whole || old.lied) return;
  const auto large = [&](const Bytes& from, const Bytes& to) {
    return from.size() == to.size() &&
           difference(member.state(), from, to).bytes > member.options().staged_bytes_max;
  };
  for (const StateSeen& to : candidates_) {
    if (large(old.seen.bits, to.bits)) return;
    // It may have got one state, whose only sender died then, and be on its way to another.
    for (const StateSeen& from : candidates_) {
      if (member.sync().info().attempts > 1 && large(from.bits, to.bits)) return;
    }
  }
  world_.fail("void", member.name() + " has been written in part, though all of it could wait");
}

void StateChecks::check_refusal(const StateMember& member) {
  const Status& status = member.sync().status();
  const bool impossible = world_.swarm.options.window_bytes == impossible_window_bytes;
  switch (status.code()) {
    case Code::timeout:
    case Code::cancelled:
      if (world_.operations.disturbed()) return;
      break;
    case Code::limit_exceeded:
      if (impossible) return;
      break;
    case Code::state_sync: {
      // Of popular members that are whole one always wins.
      const bool free = world_.swarm.strategies == 0 && !world_.swarm.strict && quiet_ &&
                        all_schemas_equal() && !world_.swarm.unlike_schema;
      const auto whole = [](const StateMember* each) { return each->state().whole(); };
      if (!free || std::ranges::none_of(survivors(), whole)) return;
      break;
    }
    default: break;
  }
  world_.fail("refusal", member.name() + " fails for no reason: " + status.reason());
}

}  // namespace pyccl::sim
