// One open operation of the caller: its memory, and the attempt that runs at present. It lives from
// the call until every member's Done, over as many views as that takes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "base/memory.hpp"
#include "collectives/select.hpp"
#include "engine/coded_data.hpp"
#include "engine/packed_data.hpp"
#include "engine/part_run.hpp"
#include "engine/peer.hpp"
#include "engine/program_cache.hpp"
#include "engine/request.hpp"
#include "protocol/messages.hpp"

namespace pyccl::engine {

struct Pools {
  explicit Pools(std::size_t slot_bytes) : slots(slot_bytes) {}
  MemoryPool memory;
  SlotPool slots;
  ProgramCache programs;
  kernels::Zstd zstd;
  PartRunPool runs;
};

// What an attempt runs in.
struct Attempt {
  OpId id;
  std::uint32_t number = 1;
  PeerId self;
  const std::vector<PeerId>& peers;  // those that take part, in rank order
  const collectives::Links& links;
  collectives::Reach reach = collectives::Reach::same_host;
};

class Operation {
 public:
  // `segment_bytes_max` bounds what descriptor().segment_bytes becomes. `root`: this rank is it.
  Operation(Ticket, Request, PeerId root, bool is_root, std::uint32_t segment_bytes_max,
            Time called, Pools&);

  const protocol::Descriptor& descriptor() const { return descriptor_; }
  const Request& request() const { return request_; }
  Ticket ticket() const { return ticket_; }
  Time called() const { return called_; }
  double weight() const { return weight_; }
  const OpId& id() const { return id_; }

  // Begins an attempt; what an earlier one did is undone first. Not ok: nothing runs, and the
  // operation is to be refused: there is no memory for it, or the arrays don't fit the members.
  Status begin(const Attempt&);
  // What to tell the others where memory runs out.
  Status out_of_memory() const;
  // Ends the present attempt, if one runs; no segment of it is asked for or accepted any more.
  void halt();
  // The result stands, or the inputs get back what they held. Ends the attempt.
  void commit();
  void roll_back();
  // Behind commit(): writes what of the result is not in its arrays yet, some `bytes` of it. True:
  // there is more; false: all is done.
  bool publish(std::uint64_t bytes);

  // A member has posted, with its weight.
  void posted(PeerId, double weight);
  bool has_posted(PeerId) const;
  bool all_posted() const { return contributors_.all_posted(); }
  // All have posted, and none of them contributes to what is to be reduced.
  bool without_contributors() const;

  // Some of the work that waits for nobody; true: there is more of it.
  bool work(std::uint64_t bytes);
  bool has_work() const;

  void segment(PeerId from, const transport::SegmentHeader&, transport::ReadToken,
               transport::MutablePieces& target);
  // Not ok: what came is nothing that could be meant, so the operation is to be refused.
  Status segment_end(PeerId from, const transport::SegmentHeader&, transport::ReadToken,
                     bool complete);
  // Payloads that are being read into its memory.
  std::vector<std::pair<PeerId, transport::ReadToken>> reads() const;
  bool has_segment(PeerId to) const;
  bool next_segment(PeerId to, transport::SegmentHeader&, transport::Pieces&);

  // Result whole and everybody known to have posted the same; true once an attempt.
  bool became_whole();

  const std::vector<PeerId>& peers() const { return peers_; }
  bool running() const { return running_; }
  // When no attempt runs any more, and of a committed one when it is published.
  OperationInfo info(Time now, bool peers_pending) const;

 private:
  void describe(PeerId root, bool is_root, std::uint32_t segment_bytes_max);
  void describe_quantization();
  void reset(const Attempt&);
  void end_run();
  void run(const Attempt&);
  void run_part(std::size_t index, const Attempt&);
  ChosenProgram program_of(const PartMemory&, collectives::Shape, const Attempt&);
  PartData& data_of(PartMemory&, CodedData::Extent, const Attempt&);
  std::int32_t rank_of(PeerId) const;

  Ticket ticket_;
  Request request_;
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
  std::vector<std::unique_ptr<CodedData>> coded_;
  std::unique_ptr<PackedData> packed_;
  std::vector<PartRunPool::Handle> parts_;
  collectives::Algorithm algorithm_ = collectives::Algorithm::automatic;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t bytes_received_ = 0;
  std::uint64_t plain_bytes_ = 0;  // what quantized data sent would have been without that
  std::uint64_t packed_bytes_ = 0;
  float largest_step_ = 0.0f;
};

}  // namespace pyccl::engine
