// All open operations of a peer: decides which segment goes next on each channel, and finds the
// operation that an incoming segment belongs to.
//
// Flow control: a member that has posted an operation has memory for all of it. Until its Posted
// has arrived here, it gets an eager budget of bytes only, which it keeps aside. Both ends count
// alike, a fixed cost for each segment included. What goes beyond breaks its connection: it comes
// again if it came too soon, and nobody can make a peer allocate.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/ids.hpp"
#include "engine/operation.hpp"
#include "transport/channel.hpp"

namespace pyccl::engine {

// What an early segment costs its receiver besides its bytes.
inline constexpr std::uint64_t eager_segment_bytes = 256;
// Per peer: a MiB in segments of the usual size.
inline constexpr std::uint64_t eager_bytes_max = (1 << 20) + 16 * eager_segment_bytes;
// Within a host a peer hears at once that another one has posted, and what comes before that is
// copied twice: worth it for small operations only.
inline constexpr std::uint64_t eager_bytes_same_host = (64 << 10) + 16 * eager_segment_bytes;
inline constexpr std::uint64_t eager_bytes_total = 32 * eager_bytes_max;  // over all peers

class ExecutorHost {
 public:
  virtual ~ExecutorHost() = default;
  virtual transport::Channel* channel(PeerId) = 0;  // nullptr: none at present
  virtual void operation_whole(OpId) = 0;
  virtual void operation_refused(OpKey, Status) = 0;
};

class Executor {
 public:
  Executor(ExecutorHost& host, PeerId self, std::uint32_t segment_bytes)
      : host_(host), self_(self), pools_(segment_bytes) {}

  Pools& pools() { return pools_; }

  void add(OpKey, std::unique_ptr<Operation>);
  Operation* find(OpKey);
  // An attempt begins among `peers`, those that take part in rank order.
  void start(OpId, std::uint32_t attempt, const std::vector<PeerId>& peers,
             const collectives::Links& links);
  void peer_posted(OpId, PeerId, double weight);
  // Takes the operation out: rolled back, or committed and to be published by whoever has it.
  std::unique_ptr<Operation> finish(OpKey, bool committed);
  // The number is free again: nobody but this peer had posted it.
  void withdraw(OpKey key) { next_seq_[{key.group, key.tag}] = key.seq; }
  // What belongs to older views is void; running attempts stop. Follows the closing of the channels
  // to those that are not in the view.
  void install(const protocol::View&);

  // Nothing more will be posted in the groups that `over` says are.
  template <class Over>
  void forget_groups(Over over) {
    std::erase_if(next_seq_, [&](const auto& entry) { return over(entry.first.first); });
  }

  void segment(PeerId from, const transport::SegmentHeader&, transport::ReadToken,
               transport::MutablePieces& target);
  void segment_end(PeerId from, const transport::SegmentHeader&, transport::ReadToken,
                   bool complete);

  // What waits for nobody, such as copies of own shares, a bounded amount of it: true, and there is
  // more.
  bool work();
  bool has_work() const;
  // Hands segments to the channels that have room.
  void pump();
  void pump(PeerId);
  // After a while without operations: lets go of what was kept warm.
  void trim();
  bool idle() const { return operations_.empty(); }
  PeerLoad load() const;

 private:
  // Where a segment belongs: of two with the same place one is a copy.
  struct Place {
    OpId op;
    PeerId from;
    std::uint16_t part = 0;
    std::uint16_t step = 0;
    std::uint64_t offset = 0;
    auto operator<=>(const Place&) const = default;
  };
  struct Stashed {
    transport::SegmentHeader header;
    Bytes payload;
  };
  using Stash = std::map<Place, Stashed>;

  static Place place_of(PeerId from, const transport::SegmentHeader&);
  static std::uint64_t cost_of(const transport::SegmentHeader& header) {
    return eager_segment_bytes + header.length;
  }

  bool finished(OpKey) const;
  void halt(Operation&);
  void silence(Operation&);
  void stash(PeerId from, const transport::SegmentHeader&, transport::ReadToken,
             transport::MutablePieces& target);
  void replay(Operation&, PeerId from, const Stashed&);
  void keep(Place, Stashed);
  void end_segment(Operation&, PeerId from, const transport::SegmentHeader&, transport::ReadToken,
                   bool complete);
  void deliver(Operation&, PeerId from, const transport::SegmentHeader&, transport::ReadToken,
               transport::MutablePieces& target);
  void check_whole(Operation&);
  bool send_one(Operation&, PeerId, transport::Channel&);
  std::uint64_t eager_budget(const Operation&, const transport::Channel&) const;

  ExecutorHost& host_;
  PeerId self_;
  Pools pools_;
  Epoch epoch_;
  std::map<OpKey, std::unique_ptr<Operation>> operations_;
  std::map<std::pair<GroupId, std::uint32_t>, std::uint32_t> next_seq_;  // posted so far
  Stash stashed_;
  std::map<std::pair<PeerId, transport::ReadToken>, Stashed> stash_reads_;
  std::map<PeerId, std::uint64_t> stash_bytes_;
  std::map<PeerId, std::uint64_t> eager_sent_;  // to peers that had not posted yet, this view
  std::map<std::pair<OpKey, PeerId>, std::uint64_t> eager_by_operation_;
  transport::ReadToken local_token_ = 1ull << 63;  // for replays; channels count from 1
};

}  // namespace pyccl::engine
