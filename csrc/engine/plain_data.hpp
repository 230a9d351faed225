// Arrays that travel as they are: sent from where they lie and received to where they belong.
#pragma once

#include <vector>

#include "engine/part_data.hpp"
#include "engine/part_memory.hpp"
#include "kernels/kernels.hpp"

namespace pyccl::engine {

class PlainData final : public PartData {
 public:
  // `element_bytes`: of a plan's element, which is more than one number if the part was laid out
  // for blocks. `weight` is this rank's.
  void begin(PartMemory& memory, kernels::ReduceOp op, double weight, std::uint64_t element_bytes);

  std::uint64_t wire_bytes(bool) const override { return element_bytes_; }
  std::uint64_t memory_bytes() const override { return element_bytes_; }
  void outgoing(collectives::Source, collectives::Range, transport::Pieces&) override;
  void arriving(collectives::Range, bool first, transport::MutablePieces&) override;
  void arrived(collectives::Range) override {}
  void fold(const FoldSegment&) override;
  void copy(collectives::Range from, std::uint64_t begin) override;

 private:
  ByteRange bytes_of(collectives::Range) const;
  void find_own(const collectives::Fold&, ByteRange, transport::Pieces&);
  void scale_input(ByteRange range);

  PartMemory* memory_ = nullptr;
  kernels::ReduceOp op_ = kernels::ReduceOp::sum;
  double weight_ = 1.0;
  std::uint64_t element_bytes_ = 1;
  std::vector<const std::byte*> sources_;  // of the fold that runs
  std::vector<double> weights_;
};

}  // namespace pyccl::engine
