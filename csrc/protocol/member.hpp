// The peer's side of the protocol, pure: the same inputs give the same outbox. It knows who takes
// part and which operations are open; it knows no socket, no byte in flight, no clock.
//
// The host (engine) feeds it messages and facts and drains `outbox` after each call, in order.
//
// An operation's life: post() numbers it; in a view where this member is not frozen it starts:
// Posted to all that take part, data, and once the result is whole, Done to them. Done from all of
// them commits it. Freeze stops all of that until the next view, whose decisions end some
// operations; the others start anew in it.
//
// Who takes part is the group, or a subgroup of it: some members, with numbers of their own. Nobody
// announces one; its first operation makes it known. It holds as long as all of them are members:
// the view without one of them ends it, and what of it that view does not commit fails.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "protocol/failures.hpp"
#include "protocol/limits.hpp"
#include "protocol/messages.hpp"
#include "protocol/view.hpp"

namespace pyccl::protocol {

struct MemberOptions {
  PeerId peer;
  std::string group = "default";
  Role role = Role::worker;
  std::vector<std::string> addresses;
  Timing timing;
};

// A call of a collective.
struct Call {
  GroupId group;                // of the subgroup; not looked at if `members` is empty
  std::vector<PeerId> members;  // of the subgroup in rank order; empty: this member's whole group
  std::uint32_t tag = 0;
  Descriptor descriptor;
  double weight = 1.0;
  Time deadline = never;
  // Elements for and from each rank, if the descriptor is uneven; else empty.
  std::vector<std::uint64_t> gives;
  std::vector<std::uint64_t> takes;
};

// ---- what a member asks of its host

// Lost if no connection stands; what matters is said again after the next one (Register).
struct SendToCoordinator {
  Message message;
};

// Any order will do, twice too. What a broken channel lost is sent again by channel_restored().
struct SendToPeer {
  PeerId to;
  Message message;
};

// Drop the connection to the coordinator and what was read from it, then dial until one stands
// (rule R12). Also said when the host itself reported that the connection broke.
struct RedialCoordinator {
  std::string reason;
};

// Open channels to these members of a view that is being prepared; answer with prepared(), with
// those that can't be reached within half of timing.prepare_limit.
struct ConnectTo {
  Epoch epoch;
  RunId run;
  std::vector<MemberInfo> members;
};

// The view to use from now on. Channels to peers outside it may be closed. What the view decided
// of open operations has been said before this.
struct ViewInstalled {
  View view;
};

// Exchange the data of this operation among its participants(). `attempt` counts from 1; what an
// earlier attempt did must be undone first.
struct StartOperation {
  OpId op;
  std::uint32_t attempt = 1;
};

// Another participant has posted it with an equal descriptor. Comes after StartOperation, once per
// peer and attempt.
struct PeerPosted {
  OpId op;
  PeerId peer;
  double weight = 1.0;
};

// Joiners are pending, if the hint is set. It is that of the group: a subgroup, of whose operations
// the others know nothing, has none, so what its operations say of it must be ignored.
struct OperationCommitted {
  OpId op;
  bool hint = false;
};

struct OperationFailed {
  OpKey op;
  Status status;
};

struct OperationWithdrawn {
  OpKey op;
};

struct UpdateFinished {
  Status status;
};

struct LeaveFinished {};

// This peer is out: every open call fails with this status, and the machine takes no further input.
struct Ended {
  Status status;
};

// For the log; said when it changes.
struct Note {
  std::string text;
};

using MemberEffect =
    std::variant<SendToCoordinator, SendToPeer, RedialCoordinator, ConnectTo, ViewInstalled,
                 StartOperation, PeerPosted, OperationCommitted, OperationFailed,
                 OperationWithdrawn, UpdateFinished, LeaveFinished, Ended, Note>;

class Member {
 public:
  Member(MemberOptions options, Time now);

  // The connection to the coordinator. connected() says Hello (joiner) or Register (member).
  void coordinator_connected(Time now);
  void coordinator_disconnected(Time now);
  void receive(Time now, const Message&);                    // from the coordinator
  void receive_from(Time now, PeerId from, const Message&);  // from another peer

  // The host's answers and observations.
  void prepared(Time now, Epoch epoch, std::vector<PeerId> unreachable);
  void channel_broken(Time now, PeerId peer);  // no connection to a member is left
  // A way to the peer exists again after messages to it may have been lost. To be called at both
  // ends, also where nobody noticed the break; what the peer may lack is sent again.
  void channel_restored(Time now, PeerId peer);

  // All that traffic has shown of the ways to others so far; told to the coordinator when it has
  // changed notably.
  void measured(Time now, std::vector<MeasuredLink> links);

  // The caller. post() numbers the operation; its data starts when StartOperation comes out. What
  // is refused at once takes no number.
  Result<OpKey> post(Time now, Call call);
  void whole(Time now, OpId op);                // whole result here, nothing owed to anybody
  void refuse(Time now, OpKey op, Status why);  // ignored after this member's Done
  Status request_update(Time now, Time deadline);
  // The caller gives update() up: true, and no UpdateFinished follows. A view that is made already
  // comes all the same. False: none waits, or its UpdateFinished stands in the outbox.
  bool withdraw_update();
  // Whether operations of the whole group have got numbers since the last boundary. The same on all
  // members that have called the same.
  bool boundary_due() const { return calls_since_boundary_ > 0; }
  Status request_leave(Time now, Time deadline);

  void tick(Time now);
  std::optional<Time> next_deadline() const;

  bool joining() const { return state_ == State::joiner; }
  bool admitted() const { return state_ == State::member; }
  bool ended() const { return state_ == State::ended; }
  bool frozen() const { return frozen_; }
  // Live; what a caller may see rides on OperationCommitted (rule R10).
  bool joiners_pending() const { return pending_ > 0; }
  const View& view() const { return view_; }
  PeerId peer() const { return options_.peer; }
  // Who takes part in this operation in the present view, in rank order, this member among them.
  // Nobody, if it is of a subgroup that this member does not know, or not any more.
  const std::vector<PeerId>& participants(OpKey op) const;
  // This member's Done for the operation is out in the present view: only a decision can still end
  // it otherwise.
  bool said_done(OpKey op) const;
  // Whether that peer has called the operation that gets this member's next number: its place in
  // the order in which calls were heard of, before all of them (0) if it has failed meanwhile.
  // Nothing while frozen, for the next view says what becomes of it.
  std::optional<std::uint64_t> called_by(PeerId peer, Numbering numbers) const;
  // Rises whenever called_by() may say more than before.
  std::uint64_t heard() const { return heard_; }
  // How much this member holds, for tests of its bounds.
  struct Load {
    std::size_t open = 0;       // operations posted here
    std::size_t known = 0;      // operations at all
    std::size_t held = 0;       // messages of later views
    std::size_t committed = 0;  // remembered for reports
    std::size_t failures = 0;   // not yet posted here
    std::size_t subgroups = 0;
    std::size_t numbers = 0;  // tags of all groups
  };
  Load load() const;
  // One line on where an operation stands: who has posted it, who has finished it.
  std::string describe(OpKey op) const;

  std::vector<MemberEffect> outbox;

 private:
  enum class State { joiner, member, leaving, ended };

  // What another participant has said of an operation in the present view.
  struct Arrival {
    bool posted = false;
    bool done = false;
    bool hint = false;
    Descriptor descriptor;  // until this member has posted it too
    std::uint64_t weight = 0;
    std::uint64_t gives = 0;
    std::uint64_t takes = 0;
    std::uint64_t heard = 0;  // as called_by() has it
  };

  struct Operation {
    bool posted = false;   // by this member
    bool started = false;  // in the present view
    bool whole = false;    // in the present view: Done has been sent
    bool hint = false;     // of that Done, immutable (rule R11)
    bool expired = false;  // its deadline has passed
    bool late = false;     // posted while frozen
    Status refusal;        // not ok: this member wants it to end so
    Descriptor descriptor;
    double weight = 1.0;
    std::vector<std::uint64_t> gives;
    std::vector<std::uint64_t> takes;
    std::vector<PeerId> ranks;  // of an uneven one: whom these amounts were given for
    Time deadline = never;
    Time alarm = never;  // as it stands in alarms_
    std::uint32_t attempt = 0;
    std::uint64_t ordinal = 0;  // in the order of posting
    std::map<PeerId, Arrival> arrivals;
  };

  struct CommittedOperation {
    OpKey op;
    bool hint = false;      // that the caller saw
    bool own_hint = false;  // of this member's Done
  };

  struct UpdateRequest {
    Time deadline = never;
    bool sent = false;
    std::vector<PeerId> missing;  // as the coordinator last said
  };

  // member.cpp: the connection to the coordinator, time, ending.
  void send(Message message);
  void note(std::string text);
  void redial(Time now, std::string reason);
  Time absence_borne() const;
  void resend_requests();
  void tell_measured();
  void end(Status status);
  Status gone(const std::string& call) const;
  void finish_leave();
  void expire_update();
  std::string name_of(PeerId peer) const;
  std::string names_of(const std::vector<PeerId>& peers) const;

  // member_views.cpp: freezing, preparing, installing.
  void handle(Time now, const Welcome&);
  void handle(Time now, const NotAdmitted&);
  void handle(Time now, const Freeze&);
  void handle(Time now, const Prepare&);
  void handle(Time now, const View&);
  void handle(Time now, const Evicted&);
  void handle(Time now, const Pending&);
  void handle(Time now, const Awaited&);
  bool newer(Epoch left, Epoch right) const;
  bool same(Epoch left, Epoch right) const;
  void freeze();
  Report make_report() const;
  void apply(const Decision&, const View& next);
  void adopt(const View&);
  void restart_operations(Time now);
  void send_update_if_quiet();

  // member_operations.cpp: operations between members.
  void accept(Time now, PeerId from, const Posted&);
  void accept(Time now, PeerId from, const Done&);
  bool hold_or_drop(PeerId from, Epoch epoch, const Message&);
  bool stopped(const Operation&) const;
  Operation* find_or_add(PeerId from, OpKey key);
  Status may_post(const Call&) const;
  Status may_number(Numbering) const;
  Status may_start(OpKey key, const Operation& operation) const;
  void start(Time now, OpKey key, Operation& operation);
  void say_posted(PeerId to, OpKey key, const Operation& operation);
  void match(Time now, OpKey key, Operation& operation, PeerId from, Arrival& arrival);
  void commit_if_done(OpKey key);
  bool done_by_all(OpKey key, const Operation& operation) const;
  void close(OpKey key);
  void uncount(PeerId peer);
  void want_end(OpKey key, Operation& operation, Status why);
  void ring(Time now);
  void expire(OpKey key, Operation& operation);
  std::string lateness(OpKey key, const Operation& operation) const;
  std::uint32_t& next_sequence(Numbering);
  std::uint32_t posted_below(Numbering) const;
  bool room_for(Numbering) const;

  // member_subgroups.cpp: who takes part.
  Status may_use(GroupId id, const std::vector<PeerId>& members) const;
  void forget_strangers(OpKey key, Operation& operation);
  bool takes_part(PeerId peer, OpKey key) const;
  bool may_take_part(PeerId peer, OpKey key) const;
  std::optional<Rank> rank_in(OpKey key, PeerId peer) const;
  std::vector<PeerId> others_in(OpKey key) const;
  std::string name_in(OpKey key, PeerId peer) const;
  bool learn_subgroup(GroupId id, const View& next);
  void end_subgroups(const View& next);
  void end_subgroup(GroupId id, const Status& why);
  Status check_amounts(const Call&, const std::vector<PeerId>& ranks) const;
  Status different(OpKey key, const Operation&, PeerId from, const Arrival&) const;
  Status unequal_amounts(OpKey key, const Operation&, PeerId from, const Arrival&) const;

  MemberOptions options_;
  GroupId group_;
  State state_ = State::joiner;
  Status end_;  // why it ended, unless by leaving

  bool connected_ = false;
  Time last_heard_;
  std::optional<Time> away_since_;  // until it is heard again
  Time heartbeat_due_;
  Duration heartbeat_interval_;
  Duration silence_limit_;         // of the coordinator
  std::uint32_t incarnation_ = 0;  // the highest coordinator that was seen

  View view_;
  std::vector<PeerId> group_peers_;  // of this view, in rank order, with this peer
  bool frozen_ = false;
  Report report_;    // while frozen
  Epoch candidate_;  // being prepared
  std::uint32_t pending_ = 0;
  std::set<std::pair<Time, OpKey>> alarms_;  // of each operation posted here, the next one
  std::set<OpKey> cancelled_;                // posted here, given up, not yet decided
  std::set<PeerId> broken_;                  // no channel to these
  std::vector<MeasuredLink> measured_;
  std::vector<MeasuredLink> told_measured_;  // on the present connection

  std::map<OpKey, Operation> operations_;
  std::map<Numbering, std::uint32_t> next_sequences_;
  Subgroups subgroups_;  // with a number or a failure here; all members are in the present view
  std::uint64_t posts_ = 0;
  std::uint64_t heard_ = 0;                       // calls of others before this member's, and views
  std::size_t open_count_ = 0;                    // posted by this member
  std::size_t calls_since_boundary_ = 0;          // of the whole group
  std::map<PeerId, std::size_t> foreign_counts_;  // open as far as we know, by who posted them
  std::map<PeerId, OpKey> last_seen_;             // the last operation that a peer posted
  std::deque<CommittedOperation> committed_;      // in this view
  Failures failures_;
  std::map<PeerId, std::vector<Message>> held_;  // of later epochs (rule R3)

  std::optional<UpdateRequest> update_;
  Time leave_deadline_ = never;
};

}  // namespace pyccl::protocol
