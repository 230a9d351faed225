// One call of one peer: what is reduced, the memory that it lies in, and what must come out.
//
// Every element is a function of (call, array, index), so data of another call, of a former attempt
// or of the wrong place can't pass for the right data. Floating point values are such that sums are
// exact in whatever order, and the expected result needs no plan.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "engine/request.hpp"
#include "sim/byte/memory.hpp"
#include "sim/byte/swarm.hpp"

namespace pyccl::sim {

// What all members call alike.
struct CallShape {
  struct Part {
    kernels::DataType dtype = kernels::DataType::f32;
    std::uint64_t count = 0;
  };
  bool barrier = false;
  std::vector<Part> arrays;
  kernels::ReduceOp op = kernels::ReduceOp::sum;
  pyccl_algorithm algorithm = PYCCL_ALGORITHM_AUTO;
  engine::OnLoss on_loss = engine::OnLoss::retry;
  bool weighted = false;
};

// The same on all members; it stays for some numbers, so that data of one operation fits the next.
CallShape shape_of(const ByteSwarm&, std::uint64_t seed, OpKey);

class ByteCall {
 public:
  // Of a mirror, which adds nothing, whatever it asks for.
  ByteCall(std::uint64_t id, CallShape shape, bool mirror, Prng& prng);

  engine::AllReduceRequest request(std::uint32_t tag, Time deadline);

  std::uint64_t id() const { return id_; }
  const CallShape& shape() const { return shape_; }
  double weight() const { return weight_; }
  bool guards_intact();
  // All that went in, and so also what lies in place.
  bool inputs_hold_inputs() const;
  // What went in and was not to be overwritten.
  bool separate_inputs_intact() const;
  // The call has ended: nobody may touch its memory any more.
  void poison();
  bool poison_intact();
  void free() { memory_.clear(); }
  ByteView result(std::size_t array) const;

  // Of the calls of all members, in rank order; 0-weighted ones included.
  static Bytes expected(const std::vector<const ByteCall*>& calls, std::size_t array);

 private:
  struct Memory {
    std::unique_ptr<GuardedBlock> input;
    std::unique_ptr<GuardedBlock> output;  // none: in place
  };

  Bytes input_of(std::size_t array) const;
  bool holds_input(std::size_t array) const;

  std::uint64_t id_;
  CallShape shape_;
  double weight_ = 1.0;
  std::vector<Memory> memory_;
};

}  // namespace pyccl::sim
