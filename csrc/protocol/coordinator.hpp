// The coordinator's side of the protocol, pure: joins, boundaries, deaths, decisions, recovery.
//
// One rule makes every view: the members of the present one are frozen, each reports once, and from
// the reports of all that are kept the next view follows. A death, a refusal and update() differ
// only in why it begins and in who stands in the result. What is said to a peer whose connection
// breaks is lost; after its Register it is told all that it needs again.
#pragma once

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
#include "protocol/fault_detector.hpp"
#include "protocol/limits.hpp"
#include "protocol/messages.hpp"
#include "protocol/round.hpp"
#include "protocol/topology.hpp"
#include "protocol/view.hpp"

namespace pyccl::protocol {

// What survives a restart: the newest view with its decisions, and the incarnation that made it.
// Written before the view is first sent.
struct CoordinatorState {
  RunId run;
  std::uint32_t incarnation = 0;
  View view;  // no members: the run has ended, or never began
  bool operator==(const CoordinatorState&) const = default;
};

struct CoordinatorOptions {
  RunId fresh_run;  // the id to use if a new run begins
  Timing timing;
  std::size_t decisions_bytes = decisions_bytes_max;  // of one group in a view; tests have it small
};

// ---- what the coordinator asks of its host, to be done in order

struct SendTo {
  PeerId to;
  Message message;
};

// Durable before anything behind it is sent.
struct Persist {
  CoordinatorState state;
};

// Dial; answer with probed().
struct Probe {
  PeerId peer;
  std::vector<std::string> addresses;
};

// Close the connection to this peer once what was sent before has left. No disconnected() follows.
struct Disconnect {
  PeerId peer;
  std::string reason;
};

struct CoordinatorNote {
  std::string text;
};

using CoordinatorEffect = std::variant<SendTo, Persist, Probe, Disconnect, CoordinatorNote>;

class Coordinator {
 public:
  Coordinator(CoordinatorOptions options, std::optional<CoordinatorState> recovered, Time now);

  // `from` is the peer that said Hello or Register on that connection; the host binds the
  // connection to it then, in place of any former one, of which nothing more is heard.
  void receive(Time now, PeerId from, const Message&);
  void disconnected(Time now, PeerId from);
  void probed(Time now, PeerId peer, ProbeResult result);

  void tick(Time now);
  std::optional<Time> next_deadline() const;

  const View& view() const { return state_.view; }
  std::size_t joiner_count() const { return joiners_.size(); }

  std::vector<CoordinatorEffect> outbox;

 private:
  enum class Phase { recovering, stable, changing };

  // A member or joiner that is, or was lately, connected.
  struct Contact {
    explicit Contact(Time now) : detector(now) {}
    FaultDetector detector;
    bool probing = false;
    Time probe_due = never;  // once more
  };

  // (who says so, whom it can't reach)
  using Link = std::pair<PeerId, PeerId>;

  // coordinator.cpp: time, messages, small helpers.
  void send(PeerId to, Message message);
  Welcome welcome() const;
  void send_to_members(const Message& message);
  void note(std::string text);
  void hang_up(PeerId peer, std::string reason);
  void say_heartbeats(Time now);
  bool is_kept(PeerId peer) const;
  std::set<PeerId> kept() const;
  std::string name_of(PeerId peer) const;
  bool is_present(Epoch epoch) const { return epoch == state_.view.epoch; }

  // coordinator_join.cpp: who comes.
  void handle(Time now, PeerId from, const Hello&);
  void handle(Time now, PeerId from, const Register&);
  Status may_join(PeerId from, const Hello&) const;
  void note_joiner(const MemberInfo& joiner);
  void refuse_joiner(PeerId peer, Status why);
  void drop_joiner(PeerId peer);
  void welcome_member(Time now, PeerId from, Epoch its_epoch);
  bool is_joiner(PeerId peer) const { return find_joiner(peer) != nullptr; }
  void tell_pending();
  const MemberInfo* find_joiner(PeerId peer) const;

  // coordinator_failure.cpp: who goes.
  void handle(Time now, PeerId from, const Leave&);
  void handle(Time now, PeerId from, const Suspect&);
  void handle(Time now, PeerId from, const Reachable&);
  void probe_again(Time now);
  void probe(PeerId peer);
  void lose(PeerId peer, std::string why);
  void take_back(PeerId peer);
  void judge(Time now);
  void judge_links(Time now);
  std::set<Link> broken_links() const;

  // coordinator_change.cpp: from one view to the next.
  void handle(Time now, PeerId from, const Report&);
  void handle(Time now, PeerId from, const Prepared&);
  void handle(Time now, PeerId from, const Update&);
  void handle(Time now, PeerId from, const UpdateWithdrawn&);
  void handle(Time now, PeerId from, const Refuse&);
  void handle(Time now, PeerId from, const Measured&);
  void advance(Time now);
  void finish_recovery(Time now);
  void begin_change();
  void propose(Time now);
  void abandon_proposal();
  bool ready() const;
  std::map<PeerId, std::string> unreachable_joiners() const;
  void leave_out_unreachable();
  void install();
  void install_ended_run();
  void admit_first();
  void publish(View next);
  void say_farewell(const std::map<PeerId, std::string>& gone);
  View view_for(PeerId peer) const;
  Epoch next_epoch();
  std::string reason_for(ViewKind kind, std::size_t admitted) const;

  CoordinatorOptions options_;
  CoordinatorState state_;
  Phase phase_ = Phase::stable;
  Epoch last_epoch_;  // given to a view or to a candidate; never reused (rule R3)

  std::map<PeerId, Contact> contacts_;
  std::vector<MemberInfo> joiners_;     // in the order of their coming
  std::map<PeerId, std::string> lost_;  // members of the present view, and why
  std::set<PeerId> banished_;           // those of them that are not taken back
  std::map<Link, Time> complaints_;
  Topology topology_;

  std::set<PeerId> registered_;          // while recovering
  Round<Report> reports_;                // of the present view
  Round<bool> updates_;                  // of the present view (rule R8)
  std::optional<View> candidate_;        // with joiners, being prepared
  Round<std::vector<PeerId>> prepared_;  // of the candidate: whom they can't reach
  bool boundary_ = false;                // the change began because all called update()
  std::string wish_;                     // why the change began, if nobody was lost

  Time heartbeat_due_;
  Time recovery_deadline_ = never;
  Time prepare_deadline_ = never;
  bool prepare_late_ = false;
};

}  // namespace pyccl::protocol
