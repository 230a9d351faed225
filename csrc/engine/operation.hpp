// One open operation of the caller: its memory, and the attempt that runs at present. It lives from
// the call until every member's Done, over as many views as that takes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/memory.hpp"
#include "collectives/select.hpp"
#include "engine/part_run.hpp"
#include "engine/peer.hpp"
#include "engine/request.hpp"
#include "protocol/messages.hpp"

namespace pyccl::engine {

struct Pools {
  explicit Pools(std::size_t slot_bytes) : slots(slot_bytes) {}
  MemoryPool memory;
  SlotPool slots;
};

class Operation {
 public:
  // `segment_bytes_max` bounds what descriptor().segment_bytes becomes.
  Operation(Ticket, protocol::Collective, const AllReduceRequest&, std::uint32_t segment_bytes_max,
            Time called, Pools&);

  const protocol::Descriptor& descriptor() const { return descriptor_; }
  Ticket ticket() const { return ticket_; }
  double weight() const { return weight_; }
  const OpId& id() const { return id_; }

  // Begins an attempt among `peers`, in rank order; what an earlier one did is undone first. Not
  // ok: there is no memory for it, nothing runs, and the operation is to be refused.
  Status begin(OpId, std::uint32_t attempt, PeerId self, const std::vector<PeerId>& peers,
               collectives::Reach reach);
  // What to tell the others where memory runs out.
  Status out_of_memory() const;
  // Ends the present attempt, if one runs; no segment of it is asked for or accepted any more.
  void halt();
  // The result stands, or the inputs get back what they held. Halts.
  void commit();
  void roll_back();

  // A member has posted, with its weight.
  void posted(PeerId, double weight);
  bool has_posted(PeerId) const;
  bool all_posted() const { return contributors_.all_posted(); }
  double weight_sum() const { return contributors_.weight_sum; }

  void segment(PeerId from, const transport::SegmentHeader&, transport::ReadToken,
               transport::MutablePieces& target);
  void segment_end(PeerId from, const transport::SegmentHeader&, transport::ReadToken,
                   bool complete);
  // Payloads that are being read into its memory.
  std::vector<std::pair<PeerId, transport::ReadToken>> reads() const;
  bool has_segment(PeerId to) const;
  bool next_segment(PeerId to, transport::SegmentHeader&, transport::Pieces&);

  // Result whole and everybody known to have posted the same; true once an attempt.
  bool became_whole();

  const std::vector<PeerId>& peers() const { return peers_; }
  bool running() const { return running_; }
  OperationInfo info(Time now, bool peers_pending) const;

 private:
  void run(OpId, std::uint32_t attempt, PeerId self, const std::vector<PeerId>& peers,
           collectives::Reach reach);
  Backup backup_for(bool uses_partial) const;
  std::int32_t rank_of(PeerId) const;
  collectives::AllReduceShape shape_of(const PartMemory&) const;

  Ticket ticket_;
  protocol::Descriptor descriptor_;
  double weight_;
  Time called_;
  Pools& pools_;
  std::vector<PartMemory> memory_;

  OpId id_;
  std::uint32_t attempt_ = 0;
  bool running_ = false;
  bool told_whole_ = false;
  std::vector<PeerId> peers_;
  std::map<PeerId, Rank> ranks_;
  Rank self_rank_ = 0;
  std::vector<bool> posted_;
  Contributors contributors_;
  std::vector<std::unique_ptr<PartRun>> parts_;
  collectives::Algorithm algorithm_ = collectives::Algorithm::automatic;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t bytes_received_ = 0;
};

}  // namespace pyccl::engine
