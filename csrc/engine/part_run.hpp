// One attempt at one part: runs a Plan on memory, segment by segment. It says which segment may
// leave next and takes what arrives; it knows no channel and no peer, only ranks.
//
// What arrives may arrive twice and in any order (transport/channel.hpp); a bit per segment makes
// the second one harmless.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "base/memory.hpp"
#include "collectives/plan.hpp"
#include "engine/part_memory.hpp"
#include "kernels/kernels.hpp"
#include "transport/channel.hpp"

namespace pyccl::engine {

// What the folds of an operation need to know of its members; shared by its parts.
struct Contributors {
  std::vector<double> weights;  // by rank; valid once all have posted
  std::size_t posted = 0;       // members known to have posted, oneself included
  double weight_sum = 0.0;
  bool all_posted() const { return posted == weights.size(); }
};

struct PartRunOptions {
  std::uint16_t part = 0;
  Rank self = 0;
  double weight = 1.0;  // the own one
  kernels::ReduceOp op = kernels::ReduceOp::sum;
  std::uint32_t segment_bytes = 0;
};

class PartRun {
 public:
  PartRun(const PartRunOptions&, collectives::Plan, PartMemory&, const Contributors&, SlotPool&);
  ~PartRun();
  PartRun(const PartRun&) = delete;
  PartRun& operator=(const PartRun&) = delete;

  // Folds that need nobody else's data, and those that waited for the weights.
  void start();
  void all_posted();

  // As ChannelObserver: fills `target` or leaves it empty to have the payload thrown away.
  void segment(Rank from, const transport::SegmentHeader&, transport::ReadToken,
               transport::MutablePieces& target);
  void segment_end(Rank from, transport::ReadToken, bool complete);

  // A payload that is being read, named as its channel names it.
  struct Read {
    Rank from = 0;
    transport::ReadToken token = 0;
    std::uint16_t step = 0;
    std::size_t incoming = 0;  // of the step
    std::size_t segment = 0;
    std::byte* slot = nullptr;
  };
  // The caller redirects these when the attempt ends.
  const std::vector<Read>& reads() const { return reads_; }

  // The next segment for a rank, if one may leave. `header.op` is the caller's to fill.
  bool next_segment(Rank to, transport::SegmentHeader& header, transport::Pieces& pieces);
  bool has_segment(Rank to) const;

  bool whole() const { return results_missing_ == 0; }

 private:
  // One transfer that arrives: (from, step).
  struct Incoming {
    Rank from = 0;
    std::uint16_t step = 0;
    collectives::Range range;
    int fold = -1;          // index into folds_, or -1: a receive
    std::size_t place = 0;  // in the fold's order
    std::vector<bool> received;
    std::vector<bool> saved;  // receives: what lies there has been kept
    std::size_t missing = 0;  // segments
  };

  // One contribution of one segment of a fold.
  struct Staged {
    std::byte* slot = nullptr;
    bool empty = false;
  };

  struct FoldRun {
    std::uint16_t step = 0;
    collectives::Fold fold;
    std::vector<std::uint32_t> missing;  // by segment: contributions of others
    std::vector<Staged> staged;          // [segment * order.size() + place]
    std::vector<bool> made_empty;        // by segment: nobody has contributed so far
  };

  struct Outgoing {
    std::uint16_t step = 0;
    collectives::Send send;
    std::size_t segments = 0;
    std::size_t next = 0;  // sends of input: the next segment
    bool open = true;      // sends of input: what they wait for has come
  };

  struct Ready {
    std::size_t outgoing = 0;
    std::size_t segment = 0;
  };

  struct Lane {                       // to one rank
    std::deque<Ready> ready;          // made here, first come first served
    std::vector<std::size_t> inputs;  // outgoing_, in the order of the plan
    std::size_t done = 0;             // of inputs: all their segments have left
  };

  std::size_t segments_of(collectives::Range) const;
  collectives::Range segment_range(collectives::Range, std::size_t segment) const;
  ByteRange bytes_of(collectives::Range) const;

  void add_step(std::uint16_t step, const collectives::Step&);
  Incoming* find_incoming(Rank from, std::uint16_t step);
  void arrived(Incoming&, std::size_t segment, std::byte* slot);
  void contribution(Incoming&, std::size_t segment, Staged);
  void fold_segment(std::size_t fold, std::size_t segment);
  void run_kernel(FoldRun&, std::size_t segment, ByteRange range);
  void made(std::uint16_t step, collectives::Range range, std::size_t segment, bool result);
  void received_all(const Incoming&);
  bool is_empty(const Outgoing&, std::size_t segment) const;
  void fill_pieces(const Outgoing&, ByteRange range, transport::Pieces& pieces);
  void scale_input(ByteRange range);

  PartRunOptions options_;
  PartMemory& memory_;
  const Contributors& contributors_;
  SlotPool& slots_;
  std::uint64_t element_bytes_;
  std::uint64_t segment_elements_;
  std::vector<std::vector<Incoming>> incoming_;  // by step
  std::vector<FoldRun> folds_;
  std::vector<Outgoing> outgoing_;
  std::vector<std::vector<std::size_t>> followers_;  // by step: sends of what the step makes
  std::vector<std::vector<std::size_t>> held_back_;  // by step: sends of input that wait for it
  std::vector<Lane> lanes_;                          // by rank
  std::vector<std::pair<std::size_t, std::size_t>> waiting_;  // (fold, segment) for the weights
  std::vector<Read> reads_;
  std::uint64_t results_missing_ = 0;  // segments
};

}  // namespace pyccl::engine
