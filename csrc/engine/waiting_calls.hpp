// Calls that have no number yet, in the order in which they were made.
//
// Two things hold one up. While the fate of a cancelled operation of its tag is open, the number
// may become free again. And a receiver that names no sender waits for the first of all that it may
// be. Until then it may want the next number of each of those pairs, so a later call that wants one
// of them stays behind it: receives of a tag match sends in the order of both.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "engine/peer.hpp"
#include "engine/request.hpp"
#include "protocol/member.hpp"

namespace pyccl::engine {

struct WaitingCall {
  Ticket ticket = 0;
  Request request;
  Time called;
};

class WaitingCalls {
 public:
  // Whether the fate of a cancelled operation of that group and tag is open.
  using Undecided = std::function<bool(protocol::Numbering)>;

  WaitingCalls(PeerId self, GroupId group) : self_(self), group_(group) {}

  bool empty() const { return calls_.empty(); }
  // Whether a call that waits may want the next of these numbers.
  bool want(protocol::Numbering) const;
  void add(WaitingCall, const protocol::View&);
  // One that found its sender, which was lost before all had come, goes back to its place, for
  // tickets rise. False: it has named its sender, or nobody else is left.
  bool add_again(WaitingCall, const Status& failure, const protocol::View&);
  bool remove(Ticket);
  std::vector<Ticket> remove_all();
  // Those that are not in the view send no more.
  void install(const protocol::View&);
  // The fate of a cancelled operation is known.
  void decided() { changed_ = true; }

  // The first call that waits no longer, with its sender filled in: to be posted, or failed with a
  // status that is not ok. To be asked until there is none.
  std::optional<std::pair<WaitingCall, Status>> next(const protocol::Member&, Time now,
                                                     const Undecided&);
  // One whose deadline has passed, and what to tell its caller.
  std::optional<std::pair<Ticket, Status>> expire(Time now);
  std::optional<Time> next_deadline() const;

 private:
  // One number that a call may get.
  struct Choice {
    protocol::Numbering numbers;
    PeerId sender;  // where the receiver names none
    Rank rank = -1;
  };
  struct Entry {
    WaitingCall call;
    std::vector<Choice> choices;
    Status lost;  // why nobody is left: of the last sender that was lost
    bool names_sender() const { return call.request.sources.empty(); }
  };

  Entry entry_of(WaitingCall, const protocol::View&) const;
  void insert(Entry);
  void drop_lost(Entry&, const protocol::View&) const;
  std::pair<WaitingCall, Status> take(std::size_t index, const Choice*);

  PeerId self_;
  GroupId group_;
  std::vector<Entry> calls_;
  // Nothing can have come of another look if neither has changed since the last one.
  bool changed_ = false;
  std::uint64_t heard_ = 0;
};

}  // namespace pyccl::engine
