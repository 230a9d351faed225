// One call of one peer: what is exchanged, the memory that it lies in, and what must come out.
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
    std::uint64_t count = 0;  // of the whole, or of what a rank has for each other
  };
  collectives::Kind kind = collectives::Kind::all_reduce;
  std::vector<Part> arrays;
  kernels::ReduceOp op = kernels::ReduceOp::sum;
  collectives::Algorithm algorithm = collectives::Algorithm::automatic;
  engine::OnLoss on_loss = engine::OnLoss::retry;
  bool weighted = false;
  std::uint32_t root = 0;    // modulo the number of members
  std::uint64_t uneven = 0;  // not 0: ranks differ in their counts, by this seed
  engine::Quantization quantization;

  bool barrier() const { return kind == collectives::Kind::barrier; }
};

// The same on all members; it stays for some numbers, so that data of one operation fits the next.
CallShape shape_of(const ByteSwarm&, std::uint64_t seed, OpKey);

// Who calls, in which group.
struct Caller {
  Rank self = 0;
  std::vector<PeerId> peers;
  bool mirror = false;  // adds nothing, whatever it asks for
};

class ByteCall {
 public:
  ByteCall(std::uint64_t id, CallShape shape, const Caller& caller, Prng& prng);

  engine::Request request(std::uint32_t tag, Time deadline);

  std::uint64_t id() const { return id_; }
  const CallShape& shape() const { return shape_; }
  PeerId root() const;
  double weight() const { return weight_; }
  // Both ask for the same, as far as either can tell: of counts that differ by rank, some other
  // shape may come to the same shares.
  bool agrees_with(const ByteCall& other) const;
  bool guards_intact();
  // All that went in, and so also what lies in place.
  bool inputs_hold_inputs() const;
  // What went in and was not to be overwritten.
  bool separate_inputs_intact() const;
  // The call has ended: nobody may touch its memory any more.
  void poison();
  bool poison_intact();
  void free() { memory_.clear(); }
  // The first bytes of the output.
  ByteView result(std::size_t array, std::size_t bytes) const;

  // What `rank` must get, of the calls of all members in rank order, 0-weighted ones included.
  static Bytes expected(const std::vector<const ByteCall*>& calls, std::size_t array, Rank rank);

 private:
  struct Memory {
    std::unique_ptr<GuardedBlock> input;   // none: in place
    std::unique_ptr<GuardedBlock> output;  // in place as large as both need
    std::size_t input_begin = 0;           // in place
    std::uint64_t input_count = 0;
    std::uint64_t output_count = 0;
  };

  Rank world() const { return static_cast<Rank>(peers_.size()); }
  Memory lay_out(std::size_t array) const;
  std::uint64_t amount(std::size_t array, Rank from, Rank to) const;
  std::uint64_t amounts(std::size_t array, Rank from, Rank upto) const;
  void scatter(engine::Request& request) const;
  const std::byte* input_at(const Memory& memory) const;
  Bytes input_of(std::size_t array) const;
  Bytes piece_of(std::size_t array, std::uint64_t begin, std::uint64_t count) const;
  bool holds_input(std::size_t array) const;
  bool agrees_with(const ByteCall& other, std::size_t array) const;
  // Alone nothing is.
  bool quantized(const std::vector<const ByteCall*>& calls) const {
    return shape_.quantization.on() && calls.size() > 1;
  }
  Bytes sent(const std::vector<const ByteCall*>& calls, std::size_t array) const;
  static Bytes reduced(const std::vector<const ByteCall*>& calls, std::size_t array,
                       std::uint64_t begin, std::uint64_t count);

  std::uint64_t id_;
  CallShape shape_;
  Rank self_;
  std::vector<PeerId> peers_;
  double weight_ = 1.0;
  std::vector<Memory> memory_;
};

// "call 7: gather by ring, f32[10]".
std::string to_string(const ByteCall& call);

}  // namespace pyccl::sim
