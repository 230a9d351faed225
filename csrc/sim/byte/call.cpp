// Shapes, values and expected results; see call.hpp.
#include "sim/byte/call.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "engine/layout.hpp"
#include "sim/byte/quantized.hpp"

namespace pyccl::sim {
namespace {

using collectives::Algorithm;
using collectives::Kind;
using kernels::DataType;
using kernels::ReduceOp;

constexpr std::uint32_t shape_lasts = 16;  // numbers of a tag

std::uint64_t mix(std::uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
  return value ^ (value >> 31);
}

// Small whole numbers as IEEE half precision.
std::uint16_t half_of(int value) {
  if (value == 0) return 0;
  const auto magnitude = static_cast<unsigned>(value < 0 ? -value : value);
  const auto exponent = static_cast<unsigned>(std::bit_width(magnitude)) - 1;
  const unsigned fraction = (magnitude << (10 - exponent)) & 0x3ff;
  return static_cast<std::uint16_t>((value < 0 ? 0x8000u : 0u) | ((exponent + 15) << 10) |
                                    fraction);
}

void store_value(std::byte* at, DataType dtype, std::uint64_t bits) {
  if (dtype == DataType::u64) {
    std::memcpy(at, &bits, sizeof bits);
  } else if (dtype == DataType::f32) {
    const auto value = static_cast<float>(static_cast<std::int64_t>(bits % 65536) - 32768);
    std::memcpy(at, &value, sizeof value);
  } else {
    const std::uint16_t value = half_of(static_cast<int>(bits % 17) - 8);
    std::memcpy(at, &value, sizeof value);
  }
}

bool all_floating(const CallShape& shape) {
  return std::ranges::all_of(shape.arrays,
                             [](const auto& part) { return kernels::is_floating(part.dtype); });
}

ReduceOp draw_op(Prng& prng, const CallShape& shape) {
  constexpr std::array floating{ReduceOp::sum, ReduceOp::avg, ReduceOp::max, ReduceOp::min};
  constexpr std::array any{ReduceOp::sum, ReduceOp::sum, ReduceOp::max, ReduceOp::min};
  return all_floating(shape) ? floating[prng.below(4)] : any[prng.below(4)];
}

std::uint64_t draw_count(Prng& prng, std::uint64_t most) {
  // Small ones are where the corners are.
  return prng.chance(1, 3) ? prng.below(std::min<std::uint64_t>(most, 12) + 1)
                           : prng.below(most + 1);
}

// What it can't be of such a shape, it becomes.
void quantize(CallShape& shape, std::uint32_t segment_bytes, Prng& prng) {
  const bool reduces = engine::reduces(shape.kind);
  const bool ring = shape.kind == Kind::all_reduce && shape.algorithm == Algorithm::ring;
  const bool suits = shape.kind == Kind::all_reduce || shape.kind == Kind::reduce_scatter ||
                     shape.kind == Kind::all_gather || shape.kind == Kind::broadcast;
  // A block of 32 numbers takes up to 128 bytes.
  if (!suits || segment_bytes < 128) return;
  if (reduces && !ring) shape.algorithm = Algorithm::direct;
  for (CallShape::Part& part : shape.arrays) {
    if (!kernels::is_floating(part.dtype)) part.dtype = DataType::f32;
  }
  if (reduces && shape.op != ReduceOp::avg) shape.op = ReduceOp::sum;
  shape.quantization = draw_quantization(prng, segment_bytes);
  // Sums of few bits depend on their order, which on a ring is that of the links.
  if (ring) shape.quantization.partial = DataType::f32;
}

}  // namespace

std::string to_string(const ByteCall& call) {
  const CallShape& shape = call.shape();
  std::string text = "call " + std::to_string(call.id()) + ": " +
                     std::string(collectives::name_of(shape.kind)) + " by " +
                     std::string(collectives::name_of(shape.algorithm)) + ",";
  for (const CallShape::Part& part : shape.arrays) {
    text +=
        " " + std::string(kernels::name_of(part.dtype)) + "[" + std::to_string(part.count) + "]";
  }
  if (shape.quantization.on()) {
    text += " as " + std::string(kernels::name_of(shape.quantization.format.codec));
  }
  return text + (shape.uneven != 0 ? ", uneven" : "");
}

CallShape shape_of(const ByteSwarm& swarm, std::uint64_t seed, OpKey key) {
  constexpr std::array dtypes{DataType::f32, DataType::u64, DataType::u64, DataType::f16};
  constexpr std::array others{Kind::all_gather, Kind::all_to_all, Kind::reduce_scatter,
                              Kind::broadcast,  Kind::reduce,     Kind::gather,
                              Kind::scatter};
  Prng prng(seed ^ mix(key.group.value + 1) ^ mix(key.tag + 77) ^ (key.seq / shape_lasts));
  CallShape shape;
  if (prng.chance(swarm.other_kinds_percent, 100)) shape.kind = others[prng.below(others.size())];
  if (prng.chance(swarm.barrier_percent, 100)) shape.kind = Kind::barrier;
  std::size_t arrays = 1;
  if (prng.chance(swarm.list_percent, 100)) arrays = prng.chance(1, 6) ? 40 : prng.between(2, 5);
  for (std::size_t i = 0; i < arrays && !shape.barrier(); ++i) {
    const std::uint64_t most = arrays > 5 ? 30 : swarm.count_most;
    shape.arrays.push_back({dtypes[prng.below(dtypes.size())], draw_count(prng, most)});
  }
  shape.op = draw_op(prng, shape);
  do {
    shape.algorithm = static_cast<Algorithm>(prng.below(PYCCL_ALGORITHM_COUNT));
  } while (!collectives::offers(shape.kind, shape.algorithm));
  shape.root = static_cast<std::uint32_t>(prng.below(8));
  if (prng.chance(1, 3) && arrays == 1) shape.uneven = prng.next() | 1;
  const bool raise = prng.chance(swarm.raise_percent, 100) && !shape.barrier();
  shape.on_loss = raise ? engine::OnLoss::raise : engine::OnLoss::retry;
  shape.weighted = prng.chance(swarm.weight_percent, 100);
  if (prng.chance(swarm.quantized_percent, 100)) quantize(shape, swarm.segment_bytes, prng);
  return shape;
}

ByteCall::ByteCall(std::uint64_t id, CallShape shape, const Caller& caller, Prng& prng)
    : id_(id), shape_(std::move(shape)), self_(caller.self), peers_(caller.peers) {
  const bool scales = shape_.op == ReduceOp::sum || shape_.op == ReduceOp::avg;
  if (shape_.weighted && engine::reduces(shape_.kind)) {
    constexpr std::array weights{0.0, 0.5, 1.0, 2.0};
    weight_ = scales && all_floating(shape_) ? weights[prng.below(4)]
              : prng.chance(2, 3)            ? 1.0
                                             : 0.0;
  }
  if (caller.mirror && engine::reduces(shape_.kind)) weight_ = 0.0;
  for (std::size_t i = 0; i < shape_.arrays.size(); ++i) {
    const std::size_t size = kernels::size_of(shape_.arrays[i].dtype);
    Memory memory = lay_out(i);
    const std::size_t input_bytes = memory.input_count * size;
    const std::size_t output_bytes = memory.output_count * size;
    const bool apart = shape_.kind == Kind::exchange;  // what comes would replace what goes
    if (prng.chance(1, 2) || apart || input_bytes == 0 || output_bytes == 0) {
      memory.input = std::make_unique<GuardedBlock>(input_bytes, prng.below(5));
      memory.input_begin = 0;
    }
    const std::size_t both = std::max(output_bytes, memory.input_begin + input_bytes);
    memory.output =
        std::make_unique<GuardedBlock>(memory.input ? output_bytes : both, prng.below(5));
    std::fill_n(memory.output->data(), memory.output->size(), std::byte{0xee});
    memory_.push_back(std::move(memory));
    const Bytes input = input_of(i);
    std::ranges::copy(input, const_cast<std::byte*>(input_at(memory_.back())));
  }
}

PeerId ByteCall::root() const {
  const bool rooted = shape_.kind == Kind::broadcast || shape_.kind == Kind::reduce ||
                      shape_.kind == Kind::gather || shape_.kind == Kind::scatter;
  return rooted ? peers_[shape_.root % peers_.size()] : PeerId{};
}

// What `from` has for `to`; where it has the same for all, that is for itself.
std::uint64_t ByteCall::amount(std::size_t array, Rank from, Rank to) const {
  const std::uint64_t count = shape_.arrays[array].count;
  if (shape_.uneven == 0) return count;
  const auto pair = static_cast<std::uint64_t>(from * 1000 + to);
  return mix(shape_.uneven + pair) % (count + 1);
}

// What `from` has for all ranks below `upto`.
std::uint64_t ByteCall::amounts(std::size_t array, Rank from, Rank upto) const {
  std::uint64_t sum = 0;
  for (Rank to = 0; to < upto; ++to) sum += amount(array, from, to);
  return sum;
}

bool ByteCall::agrees_with(const ByteCall& other) const {
  if (shape_.kind != other.shape_.kind || shape_.op != other.shape_.op || root() != other.root() ||
      shape_.arrays.size() != other.shape_.arrays.size()) {
    return false;
  }
  for (std::size_t i = 0; i < shape_.arrays.size(); ++i) {
    if (!agrees_with(other, i)) return false;
  }
  return true;
}

bool ByteCall::agrees_with(const ByteCall& other, std::size_t array) const {
  const CallShape::Part& part = shape_.arrays[array];
  const CallShape::Part& its = other.shape_.arrays[array];
  if (part.dtype != its.dtype) return false;
  // Even shares may be those of another view, whose operation went on in this one.
  if (shape_.uneven == 0 && other.shape_.uneven == 0) return part.count == its.count;
  const auto same = [&](Rank from, Rank to) {
    return amount(array, from, to) == other.amount(array, from, to);
  };
  switch (shape_.kind) {
    case Kind::all_to_all: return same(self_, other.self_) && same(other.self_, self_);
    case Kind::all_gather:
    case Kind::gather:
    case Kind::reduce_scatter:
    case Kind::scatter:
      for (Rank rank = 0; rank < world(); ++rank) {
        if (!same(0, rank)) return false;
      }
      return world() == other.world();
    default: return part.count == its.count;
  }
}

ByteCall::Memory ByteCall::lay_out(std::size_t array) const {
  const std::size_t size = kernels::size_of(shape_.arrays[array].dtype);
  const bool is_root = root() == peers_[static_cast<std::size_t>(self_)];
  // Of ranks that differ: what rank 0 has for a rank is its share.
  const std::uint64_t share = amount(array, 0, self_);
  const std::uint64_t whole = amounts(array, 0, world());
  const std::uint64_t count = shape_.arrays[array].count;
  Memory memory;
  memory.input_count = memory.output_count = count;
  switch (shape_.kind) {
    case Kind::all_gather:
    case Kind::gather:
      memory.input_count = share;
      memory.output_count = shape_.kind == Kind::all_gather || is_root ? whole : 0;
      memory.input_begin = amounts(array, 0, self_) * size;
      break;
    case Kind::reduce_scatter:
    case Kind::scatter:
      memory.input_count = shape_.kind == Kind::reduce_scatter || is_root ? whole : 0;
      memory.output_count = share;
      break;
    case Kind::all_to_all:
      memory.input_count = amounts(array, self_, world());
      memory.output_count = 0;
      for (Rank from = 0; from < world(); ++from) {
        memory.output_count += amount(array, from, self_);
      }
      break;
    case Kind::broadcast:
      if (!is_root) memory.input_count = 0;
      break;
    case Kind::reduce:
      if (!is_root) memory.output_count = 0;
      break;
    default: break;
  }
  return memory;
}

const std::byte* ByteCall::input_at(const Memory& memory) const {
  return memory.input ? memory.input->data() : memory.output->data() + memory.input_begin;
}

Bytes ByteCall::piece_of(std::size_t array, std::uint64_t begin, std::uint64_t count) const {
  const CallShape::Part& part = shape_.arrays[array];
  const std::size_t size = kernels::size_of(part.dtype);
  Bytes bytes(count * size);
  const std::uint64_t base = mix(id_ * 64 + array + 1);
  for (std::uint64_t i = 0; i < count; ++i) {
    store_value(bytes.data() + i * size, part.dtype, mix(base + begin + i));
  }
  return bytes;
}

Bytes ByteCall::input_of(std::size_t array) const {
  return piece_of(array, 0, memory_[array].input_count);
}

engine::Request ByteCall::request(std::uint32_t tag, Time deadline) {
  engine::Request request;
  request.kind = shape_.kind;
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    Memory& memory = memory_[i];
    request.arrays.push_back({input_at(memory), memory.output->data(), shape_.arrays[i].dtype,
                              memory.input_count, memory.output_count});
  }
  request.op = shape_.op;
  request.weight = weight_;
  request.tag = tag;
  request.on_loss = shape_.on_loss;
  request.algorithm = shape_.algorithm;
  request.quantization = shape_.quantization;
  request.deadline = deadline;
  request.world = world();
  if (shape_.kind == Kind::exchange) request.members = peers_;
  if (root()) request.root = static_cast<Rank>(shape_.root % peers_.size());
  const bool to_all = shape_.kind == Kind::all_to_all;
  const bool by_share = shape_.kind == Kind::all_gather || shape_.kind == Kind::gather ||
                        shape_.kind == Kind::reduce_scatter || shape_.kind == Kind::scatter;
  for (Rank rank = 0; rank < world() && shape_.uneven != 0; ++rank) {
    if (by_share) request.shares.push_back(amount(0, 0, rank));
    if (!to_all) continue;
    request.send_shares.push_back(amount(0, self_, rank));
    request.receive_shares.push_back(amount(0, rank, self_));
  }
  if (engine::cut_by_rank(request)) request.on_loss = engine::OnLoss::raise;
  if (to_all && shape_.uneven % 2 == 1) scatter(request);
  return request;
}

// As shared state is moved: out of pieces, which some compress.
void ByteCall::scatter(engine::Request& request) const {
  request.packable = true;
  engine::Array& array = request.arrays.front();
  if (memory_.front().input == nullptr || array.input_count == 0) return;
  const std::uint64_t width = kernels::size_of(array.dtype);
  const ByteView input(std::exchange(array.input, nullptr), array.input_count * width);
  const std::uint64_t first = array.input_count / 3 * width;
  request.input_pieces = {input.first(first), input.subspan(first)};
  if (self_ % 2 == 0) request.input_widths.assign(2, static_cast<std::uint8_t>(width));
}

bool ByteCall::guards_intact() {
  return std::ranges::all_of(memory_, [](Memory& memory) {
    return memory.output->guards_intact() &&
           (memory.input == nullptr || memory.input->guards_intact());
  });
}

bool ByteCall::holds_input(std::size_t array) const {
  const Bytes input = input_of(array);
  return std::equal(input.begin(), input.end(), input_at(memory_[array]));
}

bool ByteCall::inputs_hold_inputs() const {
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    if (!holds_input(i)) return false;
  }
  return true;
}

bool ByteCall::separate_inputs_intact() const {
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    if (memory_[i].input != nullptr && !holds_input(i)) return false;
  }
  return true;
}

void ByteCall::poison() {
  for (Memory& memory : memory_) {
    memory.output->poison();
    if (memory.input != nullptr) memory.input->poison();
  }
}

bool ByteCall::poison_intact() {
  return std::ranges::all_of(memory_, [](Memory& memory) {
    return memory.output->poison_intact() &&
           (memory.input == nullptr || memory.input->poison_intact());
  });
}

ByteView ByteCall::result(std::size_t array, std::size_t bytes) const {
  const GuardedBlock& block = *memory_[array].output;
  return {block.data(), std::min(bytes, block.size())};
}

Bytes ByteCall::sent(const std::vector<const ByteCall*>& calls, std::size_t array) const {
  const Bytes input = input_of(array);
  if (!quantized(calls)) return input;
  return rounded(input, shape_.arrays[array].dtype, shape_.quantization);
}

Bytes ByteCall::reduced(const std::vector<const ByteCall*>& calls, std::size_t array,
                        std::uint64_t begin, std::uint64_t count) {
  const CallShape& shape = calls.front()->shape_;
  const CallShape::Part& part = shape.arrays[array];
  std::vector<Bytes> inputs;
  std::vector<const std::byte*> sources;
  std::vector<double> weights;
  double weight_sum = 0.0;
  for (const ByteCall* call : calls) {
    if (call->weight_ == 0.0) continue;
    inputs.push_back(call->piece_of(array, begin, count));
    weights.push_back(call->weight_);
    weight_sum += call->weight_;
  }
  const double total = shape.op == ReduceOp::avg ? weight_sum : 1.0;
  if (calls.front()->quantized(calls)) {
    const bool ring = shape.algorithm == Algorithm::ring;
    const bool spread = shape.kind == Kind::all_reduce;
    return added_up(inputs, weights, total, {part.dtype, shape.quantization, !ring, spread});
  }
  for (const Bytes& input : inputs) sources.push_back(input.data());
  Bytes result(count * kernels::size_of(part.dtype));
  const auto fold =
      kernels::targets().front()->fold[static_cast<int>(part.dtype)][static_cast<int>(shape.op)];
  fold({result.data(), sources, weights, total, count});
  return result;
}

Bytes ByteCall::expected(const std::vector<const ByteCall*>& calls, std::size_t array, Rank rank) {
  const ByteCall& own = *calls[static_cast<std::size_t>(rank)];
  const PeerId root = own.root();
  const bool is_root = root == own.peers_[static_cast<std::size_t>(own.self_)];
  const std::uint64_t count = own.shape_.arrays[array].count;
  const auto root_call = std::ranges::find_if(calls, [&](const ByteCall* call) {
    return call->peers_[static_cast<std::size_t>(call->self_)] == root;
  });
  Bytes all;
  const auto append = [&all](const Bytes& bytes) {
    all.insert(all.end(), bytes.begin(), bytes.end());
  };
  switch (own.shape_.kind) {
    case Kind::all_reduce: return reduced(calls, array, 0, count);
    case Kind::reduce: return is_root ? reduced(calls, array, 0, count) : all;
    case Kind::reduce_scatter:
      return reduced(calls, array, own.amounts(array, 0, rank), own.amount(array, 0, rank));
    case Kind::all_gather:
    case Kind::gather:
      if (root && !is_root) return all;
      for (const ByteCall* call : calls) append(call->sent(calls, array));
      return all;
    case Kind::broadcast: return (*root_call)->sent(calls, array);
    case Kind::exchange: return calls[static_cast<std::size_t>(1 - rank)]->sent(calls, array);
    case Kind::scatter:
      // A rank may have got another place since it called.
      return (*root_call)->piece_of(array, own.amounts(array, 0, rank), own.amount(array, 0, rank));
    case Kind::all_to_all:
      for (const ByteCall* call : calls) {
        append(call->piece_of(array, call->amounts(array, call->self_, own.self_),
                              call->amount(array, call->self_, own.self_)));
      }
      return all;
    default: return all;
  }
}

}  // namespace pyccl::sim
