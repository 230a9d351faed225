// Everything that coordinator and peers say to each other: plain structs, each with the list of its
// fields. Encoding, decoding, printing and random generation (codec.hpp) follow from that list, so
// a new message is a struct, its fields and a handler.
//
// Every message names what it belongs to by a whole epoch: one that comes late is recognized and
// dropped in one place.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "protocol/limits.hpp"
#include "protocol/view.hpp"

namespace pyccl::protocol {

// ---- what an operation is

enum class Collective : std::uint8_t {
  all_reduce = 0,
  barrier = 1,
  all_gather = 2,
  all_to_all = 3,
  reduce_scatter = 4,
  broadcast = 5,
  reduce = 6,
  gather = 7,
  scatter = 8,
  send = 9,       // from rank 0 to rank 1 of a subgroup of two
  exchange = 10,  // between two
};

enum class OnLoss : std::uint8_t { retry = PYCCL_ON_LOSS_RETRY, raise = PYCCL_ON_LOSS_RAISE };

// Elements of one type among what an operation works on.
struct Part {
  std::uint8_t dtype = 0;  // pyccl_dtype
  std::uint64_t count = 0;
  bool operator==(const Part&) const = default;
};

// What all that take part must agree on before they exchange data of an operation.
struct Descriptor {
  Collective kind = Collective::all_reduce;
  std::vector<Part> parts;
  std::uint8_t reduce_op = 0;  // pyccl_redop
  std::uint8_t algorithm = 0;  // pyccl_algorithm
  std::uint8_t codec = 0;      // pyccl_codec; none: the next three are 0
  std::uint32_t block = 0;     // elements
  std::uint8_t scale_dtype = 0;
  std::uint8_t partial_dtype = 0;
  OnLoss on_loss = OnLoss::retry;
  std::int32_t root = -1;  // rank as its caller sees it; none
  PeerId root_peer;        // and who that is: ranks may have changed since the call
  std::uint32_t segment_bytes = 0;
  std::uint32_t layout = 0;  // 0: at most one array; otherwise a sum of all their types and sizes
  std::vector<std::uint64_t> shares;  // elements of each rank, where they differ
  // Amounts differ by pair: parts count 0, and each two compare what they give and take (Posted).
  bool uneven = false;
  bool operator==(const Descriptor&) const = default;
};

// For humans, as a call looks: "all_reduce(sum, f32[1000])".
std::string to_string(const Descriptor&);

// Whether a member may take part with this weight: finite and not below 0, and other than 0 and 1
// only in sums and averages of floats. Callers are held to the same (engine/request.cpp).
bool allows_weight(const Descriptor&, double weight);

// ---- from a peer to the coordinator

struct Hello {
  std::uint32_t version = protocol::version;
  RunId run;  // none: whichever the coordinator runs
  MemberInfo member;
  bool operator==(const Hello&) const = default;
};

// A member comes back on a new connection. What it wants (Report if it is frozen, Update, Refuse,
// Leave, Suspect) follows on the same connection, each as its own message: a Register is no report
// (rule R2).
struct Register {
  std::uint32_t version = protocol::version;
  PeerId peer;
  View view;  // that it has installed last, without decisions and numbers
  bool operator==(const Register&) const = default;
};

enum class OperationState : std::uint8_t {
  posted,
  whole,      // has the whole result, owes nothing, has sent Done
  committed,  // has Done from all
};

// How an operation stands at one member when its view is frozen.
struct OperationReport {
  OpKey op;
  OperationState state = OperationState::posted;
  bool hint = false;  // whole: this member's own; committed: the one that the caller saw
  OnLoss on_loss = OnLoss::retry;
  PeerId root;    // without it the operation fails; none
  Status status;  // not ok: this member wants the operation to end so
  bool operator==(const OperationReport&) const = default;
};

// From here until the next view this member commits nothing (rule R1). A number below the next one
// of its tag that is not listed has been committed long ago.
struct Report {
  Epoch epoch;
  std::vector<OperationReport> operations;
  std::vector<NextSequence> next_sequences;  // behind the last that this member has posted
  // Of tags with failures that this member has not posted yet: behind the last of them. A joiner
  // knows nothing of those failures, so it begins there.
  std::vector<NextSequence> behind_failures;
  std::vector<Subgroup> subgroups;  // all that this member knows; places in the present view
  bool operator==(const Report&) const = default;
};

// Answer to Prepare; the epoch is that of the view being prepared.
struct Prepared {
  Epoch epoch;
  std::vector<PeerId> unreachable;
  bool operator==(const Prepared&) const = default;
};

struct Update {
  Epoch epoch;
  bool operator==(const Update&) const = default;
};

struct UpdateWithdrawn {
  Epoch epoch;
  bool operator==(const UpdateWithdrawn&) const = default;
};

struct Leave {
  Epoch epoch;
  bool operator==(const Leave&) const = default;
};

// All connections to that member are broken.
struct Suspect {
  Epoch epoch;
  PeerId peer;
  bool operator==(const Suspect&) const = default;
};

struct Reachable {
  Epoch epoch;
  PeerId peer;
  bool operator==(const Reachable&) const = default;
};

// What the traffic of a peer has shown of its way to another one.
struct MeasuredLink {
  PeerId peer;
  std::uint32_t latency_us = 0;  // one way; 0: both are on one host, and the next one says nothing
  std::uint32_t mb_per_s = 0;    // that the way has carried, or could have; 0: not known
  bool operator==(const MeasuredLink&) const = default;
};

// All of them, whenever they have changed notably. They count for the next view that is made.
struct Measured {
  std::vector<MeasuredLink> links;
  bool operator==(const Measured&) const = default;
};

// Asks for a freeze, since this member can't wait for the operation any longer. What it wants
// stands in its report.
struct Refuse {
  Epoch epoch;
  OpKey op;
  Status status;
  bool operator==(const Refuse&) const = default;
};

// ---- from the coordinator to a peer

// Answer to Hello (you wait as a joiner) and to Register.
struct Welcome {
  RunId run;
  std::uint32_t incarnation = 0;
  std::uint32_t heartbeat_limit = 0;  // the coordinator's, in milliseconds
  bool operator==(const Welcome&) const = default;
};

struct NotAdmitted {
  Status status;
  bool operator==(const NotAdmitted&) const = default;
};

struct Freeze {
  Epoch epoch;
  bool operator==(const Freeze&) const = default;
};

// A view that may come: connect to its members, and freeze if you are in its parent.
struct Prepare {
  View view;
  bool operator==(const Prepare&) const = default;
};

struct Evicted {
  Epoch epoch;
  Status status;
  bool operator==(const Evicted&) const = default;
};

// So many joiners wait.
struct Pending {
  std::uint32_t count = 0;
  bool operator==(const Pending&) const = default;
};

// To members that wait in update(): these have not called it. Only the first few are named.
struct Awaited {
  Epoch epoch;
  std::vector<PeerId> missing;
  bool operator==(const Awaited&) const = default;
};

// In both directions.
struct Heartbeat {
  bool operator==(const Heartbeat&) const = default;
};

// ---- between members

struct Posted {
  OpId op;
  Descriptor descriptor;
  std::uint64_t weight = 0;  // bit pattern of the double: no message holds a float
  std::uint64_t gives = 0;  // of an uneven operation: elements that the sender has for the receiver
  std::uint64_t takes = 0;  // and expects of it
  bool operator==(const Posted&) const = default;
};

struct Done {
  OpId op;
  bool hint = false;
  bool operator==(const Done&) const = default;
};

// ---- the first words on a connection between two peers, before it becomes part of a channel
struct Link {
  std::uint32_t version = protocol::version;
  RunId run;
  PeerId from;
  PeerId to;           // the process that was meant: another one may have got its port
  std::string memory;  // an offer to go on through shared memory; empty: none
  bool operator==(const Link&) const = default;
};

struct LinkAccepted {
  std::string memory;  // the answer to that offer; empty: not taken up
  bool operator==(const LinkAccepted&) const = default;
};

struct LinkRefused {
  Status status;
  bool operator==(const LinkRefused&) const = default;
};

// The place in this list is the kind on the wire: add at the end.
using Message =
    std::variant<Hello, Register, Report, Prepared, Update, UpdateWithdrawn, Leave, Suspect,
                 Reachable, Refuse, Heartbeat, Welcome, NotAdmitted, Freeze, Prepare, View, Evicted,
                 Pending, Awaited, Posted, Done, Link, LinkAccepted, LinkRefused, Measured>;

}  // namespace pyccl::protocol
