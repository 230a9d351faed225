// One attempt at one part: runs a Program on memory, segment by segment. It says which segment may
// leave next and takes what arrives; it knows no channel and no peer, only ranks.
//
// What arrives may arrive twice and in any order (transport/channel.hpp); a bit per segment makes
// the second one harmless.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/memory.hpp"
#include "engine/part_data.hpp"
#include "engine/plain_data.hpp"
#include "engine/program.hpp"
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
  double weight = 1.0;    // the own one
  bool averages = false;  // final values are divided by the sum of the weights
};

class PartRun {
 public:
  PartRun() = default;
  ~PartRun() { end(); }
  PartRun(const PartRun&) = delete;
  PartRun& operator=(const PartRun&) = delete;

  // All that is referred to lives until end(), after which the next attempt may begin.
  void begin(const PartRunOptions&, std::shared_ptr<const Program>, PartData&, const Contributors&,
             SlotPool&);
  void end();
  // For arrays that travel as they are; kept from run to run.
  PlainData& plain() { return plain_; }

  // Folds that need nobody else's data, and those that waited for the weights.
  void start();
  void all_posted();
  // Copies own shares to where they belong, some `bytes` of them; true: there is more to do.
  bool copy_some(std::uint64_t bytes);
  bool has_copies() const { return copy_ < program_->copies.size(); }

  // As ChannelObserver: fills `target` or leaves it empty to have the payload thrown away.
  void segment(Rank from, const transport::SegmentHeader&, transport::ReadToken,
               transport::MutablePieces& target);
  // False: what has come can't be decompressed, and will not come again.
  bool segment_end(Rank from, transport::ReadToken, bool complete);

  // A payload that is being read, named as its channel names it.
  struct Read {
    Rank from = 0;
    transport::ReadToken token = 0;
    std::size_t incoming = 0;
    std::uint32_t segment = 0;
    std::byte* slot = nullptr;
    std::byte* spare = nullptr;  // the slot for what comes compressed to a fold
    std::uint32_t packed = 0;    // bytes of a compressed payload; 0: it is none
  };
  // The caller redirects these when the attempt ends.
  const std::vector<Read>& reads() const { return reads_; }

  // The next segment for a rank, if one may leave. `header.op` is the caller's to fill.
  bool next_segment(Rank to, transport::SegmentHeader& header, transport::Pieces& pieces);
  bool has_segment(Rank to) const;

  bool whole() const { return results_missing_ == 0 && copy_ == program_->copies.size(); }

 private:
  // One contribution of one segment of a fold.
  struct Staged {
    std::byte* slot = nullptr;
    bool empty = false;
  };

  struct Ready {
    std::uint32_t outgoing = 0;
    std::uint32_t segment = 0;
  };

  struct Lane {                // to one rank
    std::vector<Ready> ready;  // made here, first come first served
    std::size_t taken = 0;     // of ready
    std::size_t done = 0;      // sends of input of which all segments have left
    std::uint32_t next = 0;    // segment of the present one

    void reset() {
      ready.clear();
      taken = done = next = 0;
    }
  };

  // On the wire, of one element of what arrives.
  std::uint64_t wire_bytes(const Incoming&) const;
  bool is_partial(const Incoming&) const;
  bool unpack(Read&, const Incoming&);
  void contribution(const Incoming&, std::uint32_t segment, Staged);
  void fold_segment(std::size_t fold, std::uint32_t segment);
  void gather_contributions(const FoldPlan&, std::uint32_t segment);
  void run_fold(std::size_t fold, std::uint32_t segment);
  void made(const std::vector<std::uint32_t>& readers, collectives::Range whole,
            std::uint32_t segment);
  void may_read(const Reader&, std::uint32_t segment);
  void step_folded(std::uint16_t step);
  void received_all(const Incoming&);
  bool is_empty(const Outgoing&) const;
  bool all_empty(const std::vector<std::uint32_t>& folds) const;
  void copy_segment(const collectives::Copy&, std::uint32_t segment);

  PartRunOptions options_;
  std::shared_ptr<const Program> program_;
  PlainData plain_;
  PartData* data_ = nullptr;
  const Contributors* contributors_ = nullptr;
  SlotPool* slots_ = nullptr;

  std::vector<std::uint8_t> received_;          // by incoming segment
  std::vector<std::uint8_t> asked_;             // of receives: has begun to arrive
  std::vector<std::uint32_t> incoming_left_;    // by incoming: segments
  std::vector<std::uint32_t> fold_missing_;     // by fold segment: sources
  std::vector<std::uint8_t> fold_empty_;        // by fold: nobody has contributed
  std::vector<Staged> staged_;                  // by fold, segment and place
  std::vector<std::uint16_t> reader_missing_;   // by segment of readers that are not exact
  std::vector<std::uint32_t> step_folds_left_;  // by step: segments
  std::vector<std::uint8_t> open_;              // by outgoing: what a send of input waits for came
  std::vector<Lane> lanes_;                     // by rank
  std::vector<std::pair<std::size_t, std::uint32_t>> waiting_;  // (fold, segment) for the weights
  std::vector<Read> reads_;
  std::uint64_t results_missing_ = 0;  // segments
  std::size_t copy_ = 0;               // the next one to do
  std::uint32_t copy_segment_ = 0;
  std::vector<Contribution> contributions_;  // to the fold that runs
};

// Runs that have ended and keep their memory for the next ones.
class PartRunPool {
 public:
  struct GiveBack {
    PartRunPool* pool = nullptr;
    void operator()(PartRun* run) const { pool->give_back(run); }
  };
  using Handle = std::unique_ptr<PartRun, GiveBack>;

  Handle take() {
    if (idle_.empty()) return Handle(new PartRun, {this});
    PartRun* run = idle_.back().release();
    idle_.pop_back();
    return Handle(run, {this});
  }
  void trim() { idle_.clear(); }

 private:
  void give_back(PartRun* run) {
    constexpr std::size_t idle_max = 64;
    std::unique_ptr<PartRun> owned(run);
    owned->end();
    if (idle_.size() < idle_max) idle_.push_back(std::move(owned));
  }

  std::vector<std::unique_ptr<PartRun>> idle_;
};

}  // namespace pyccl::engine
