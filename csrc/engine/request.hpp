// What a caller asks for and what it gets, in terms of memory and numbers only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "collectives/select.hpp"
#include "kernels/kernels.hpp"
#include "kernels/quantize.hpp"

namespace pyccl::engine {

enum class OnLoss : std::uint8_t { retry = PYCCL_ON_LOSS_RETRY, raise = PYCCL_ON_LOSS_RAISE };

// One array of an operation; contiguous, any alignment. Memory that is written overlaps nothing
// else of the operation, but for an operation in place: output == input, or where a rank's own
// share lies in the whole.
struct Array {
  const std::byte* input = nullptr;
  std::byte* output = nullptr;
  kernels::DataType dtype = kernels::DataType::f32;
  std::uint64_t input_count = 0;  // elements; 0 where this rank contributes nothing
  std::uint64_t output_count = 0;
};

// How payloads are quantized. All members need the same format and type of partial sums; how a rank
// rounds is its own affair.
struct Quantization {
  kernels::BlockFormat format{.codec = kernels::Codec::none};  // none: they are not
  kernels::DataType partial = kernels::DataType::f32;          // or bf16: of sums on a ring
  kernels::Rounding rounding = kernels::Rounding::nearest;
  std::uint64_t seed = 0;  // of stochastic rounding
  bool zstd = false;       // blocks are compressed where that pays
  bool on() const { return format.codec != kernels::Codec::none; }
};

// A call of a collective. The arrays are one operation with one outcome. Their memory belongs to it
// until it has ended. With n members, elements of each array by kind:
//
//   all_reduce       input = output
//   broadcast        input = output; the input counts at the root only and the output elsewhere.
//                    At the root output == input or a copy; elsewhere input may be null
//   reduce           input; output as many at the root, none elsewhere
//   all_gather       input; output n times as much, by rank
//   gather           the same, output at the root only
//   reduce_scatter   output; input n times as much, by rank
//   scatter          the same, input at the root only
//   all_to_all       input = output, n equal shares each, by rank
//   send             input (the sender, rank 0 of its two members) or output (the receiver)
//   exchange         input and output
//   barrier          no arrays
//
// With `shares` the ranks of all_gather, gather, reduce_scatter and scatter have so many elements
// of the one array, not equally many; with `send_shares` and `receive_shares` so of all_to_all.
struct Request {
  collectives::Kind kind = collectives::Kind::all_reduce;
  std::vector<Array> arrays;
  kernels::ReduceOp op = kernels::ReduceOp::sum;
  double weight = 1.0;  // >= 0; sum and avg multiply by it, 0 takes part without contributing
  Rank root = -1;       // of those kinds that have one
  std::vector<std::uint64_t> shares;
  std::vector<std::uint64_t> send_shares;
  std::vector<std::uint64_t> receive_shares;
  // With send_shares: where the input of the one array lies, piece behind piece, if not in one.
  std::vector<ByteView> input_pieces;
  // What is moved in pieces may travel compressed. All members say the same; which do so is their
  // own affair: those who give, for each piece, the bytes of a number, 1 to 16.
  bool packable = false;
  std::vector<std::uint8_t> input_widths;
  // Who takes part, in rank order: a subgroup of the members; empty: the whole group. `name` tells
  // subgroups of the same members apart.
  std::vector<PeerId> members;
  std::string name;
  // Of a receiver that names no sender: all that it may be, by rank. `members` becomes the pair,
  // {sender, receiver}, when one of them has sent.
  std::vector<PeerId> sources;
  Rank source = -1;  // of a receiver: the sender's rank, as it shall be told
  // How many members the caller has counted on when it cut its arrays; 0: it did not.
  Rank world = 0;
  std::uint32_t tag = 0;
  OnLoss on_loss = OnLoss::retry;
  // Whoever gives it up fails it for all, with Code::state_sync, also for those who have not called
  // it yet: it is one of a sequence, and its number must not become free again.
  bool ends_for_all = false;
  collectives::Algorithm algorithm = collectives::Algorithm::automatic;
  Quantization quantization;
  Time deadline = never;
};

struct OperationInfo {
  std::int32_t world_size = 0;  // contributors: members with a weight above 0
  std::int32_t members = 0;     // of the group in the view that committed it
  Epoch epoch;
  std::uint32_t attempts = 0;
  std::uint64_t bytes_sent = 0;  // payload of the last attempt
  std::uint64_t bytes_received = 0;
  double wire_ratio = 1.0;         // what was sent, to what it would have been without quantization
  std::uint64_t bytes_packed = 0;  // of bytes_sent: what has been compressed
  float quantization_step =
      0.0f;  // the largest, of the quantized blocks that this peer made or read
  double weight_sum = 0.0;
  double seconds = 0.0;  // from the call to its end
  std::string algorithm;
  bool peers_pending = false;  // the same on all members after the same operation
  Rank source = -1;            // of the sender, at its receiver
};

// The caller's choice of algorithm. Where reductions are quantized it is by default the one that
// rounds a value twice, however many ranks there are.
collectives::Algorithm algorithm_of(const Request&);

// What the survivors of a lost member do where the caller has not said it: begin again where the
// result's shape does not depend on their number.
OnLoss usual_on_loss(collectives::Kind kind);

// Ok, or why the request can't be, whatever the view is: refused pair of type and op, weight,
// overlap, an algorithm that the collective does not have, counts that don't fit together.
Status check(const Request&);

}  // namespace pyccl::engine
