// Shapes, values and expected results; see call.hpp.
#include "sim/byte/call.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace pyccl::sim {
namespace {

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

}  // namespace

CallShape shape_of(const ByteSwarm& swarm, std::uint64_t seed, OpKey key) {
  constexpr std::array dtypes{DataType::f32, DataType::u64, DataType::u64, DataType::f16};
  Prng prng(seed ^ mix(key.group.value + 1) ^ mix(key.tag + 77) ^ (key.seq / shape_lasts));
  CallShape shape;
  shape.barrier = prng.chance(swarm.barrier_percent, 100);
  std::size_t arrays = 1;
  if (prng.chance(swarm.list_percent, 100)) arrays = prng.chance(1, 6) ? 40 : prng.between(2, 5);
  for (std::size_t i = 0; i < arrays && !shape.barrier; ++i) {
    const std::uint64_t most = arrays > 5 ? 30 : swarm.count_most;
    shape.arrays.push_back({dtypes[prng.below(dtypes.size())], draw_count(prng, most)});
  }
  shape.op = draw_op(prng, shape);
  shape.algorithm = static_cast<pyccl_algorithm>(prng.below(PYCCL_ALGORITHM_ONE_SHOT + 1));
  const bool raise = prng.chance(swarm.raise_percent, 100) && !shape.barrier;
  shape.on_loss = raise ? engine::OnLoss::raise : engine::OnLoss::retry;
  shape.weighted = prng.chance(swarm.weight_percent, 100);
  return shape;
}

ByteCall::ByteCall(std::uint64_t id, CallShape shape, bool mirror, Prng& prng)
    : id_(id), shape_(std::move(shape)) {
  const bool scales = shape_.op == ReduceOp::sum || shape_.op == ReduceOp::avg;
  if (shape_.weighted && !shape_.barrier) {
    constexpr std::array weights{0.0, 0.5, 1.0, 2.0};
    weight_ = scales && all_floating(shape_) ? weights[prng.below(4)]
              : prng.chance(2, 3)            ? 1.0
                                             : 0.0;
  }
  if (mirror && !shape_.barrier) weight_ = 0.0;
  for (std::size_t i = 0; i < shape_.arrays.size(); ++i) {
    const Bytes input = input_of(i);
    Memory memory;
    memory.input = std::make_unique<GuardedBlock>(input.size(), prng.below(5));
    std::ranges::copy(input, memory.input->data());
    if (prng.chance(1, 2)) {
      memory.output = std::make_unique<GuardedBlock>(input.size(), prng.below(5));
      std::fill_n(memory.output->data(), input.size(), std::byte{0xee});
    }
    memory_.push_back(std::move(memory));
  }
}

Bytes ByteCall::input_of(std::size_t array) const {
  const CallShape::Part& part = shape_.arrays[array];
  const std::size_t size = kernels::size_of(part.dtype);
  Bytes bytes(part.count * size);
  const std::uint64_t base = mix(id_ * 64 + array + 1);
  for (std::uint64_t i = 0; i < part.count; ++i) {
    store_value(bytes.data() + i * size, part.dtype, mix(base + i));
  }
  return bytes;
}

engine::AllReduceRequest ByteCall::request(std::uint32_t tag, Time deadline) {
  engine::AllReduceRequest request;
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    GuardedBlock& input = *memory_[i].input;
    GuardedBlock* output = memory_[i].output.get();
    request.arrays.push_back({input.data(), output != nullptr ? output->data() : input.data(),
                              shape_.arrays[i].dtype, shape_.arrays[i].count});
  }
  request.op = shape_.op;
  request.weight = weight_;
  request.tag = tag;
  request.on_loss = shape_.on_loss;
  request.algorithm = shape_.algorithm;
  request.deadline = deadline;
  return request;
}

bool ByteCall::guards_intact() {
  return std::ranges::all_of(memory_, [](Memory& memory) {
    return memory.input->guards_intact() &&
           (memory.output == nullptr || memory.output->guards_intact());
  });
}

bool ByteCall::holds_input(std::size_t array) const {
  const Bytes input = input_of(array);
  return std::equal(input.begin(), input.end(), memory_[array].input->data());
}

bool ByteCall::inputs_hold_inputs() const {
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    if (!holds_input(i)) return false;
  }
  return true;
}

bool ByteCall::separate_inputs_intact() const {
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    if (memory_[i].output != nullptr && !holds_input(i)) return false;
  }
  return true;
}

void ByteCall::poison() {
  for (Memory& memory : memory_) {
    memory.input->poison();
    if (memory.output != nullptr) memory.output->poison();
  }
}

bool ByteCall::poison_intact() {
  return std::ranges::all_of(memory_, [](Memory& memory) {
    return memory.input->poison_intact() &&
           (memory.output == nullptr || memory.output->poison_intact());
  });
}

ByteView ByteCall::result(std::size_t array) const {
  const Memory& memory = memory_[array];
  const GuardedBlock& block = memory.output != nullptr ? *memory.output : *memory.input;
  return {block.data(), block.size()};
}

Bytes ByteCall::expected(const std::vector<const ByteCall*>& calls, std::size_t array) {
  const CallShape& shape = calls.front()->shape_;
  const CallShape::Part& part = shape.arrays[array];
  std::vector<Bytes> inputs;
  std::vector<const std::byte*> sources;
  std::vector<double> weights;
  double weight_sum = 0.0;
  for (const ByteCall* call : calls) {
    if (call->weight_ == 0.0) continue;
    inputs.push_back(call->input_of(array));
    weights.push_back(call->weight_);
    weight_sum += call->weight_;
  }
  for (const Bytes& input : inputs) sources.push_back(input.data());
  Bytes result(part.count * kernels::size_of(part.dtype));
  const auto fold =
      kernels::targets().front()->fold[static_cast<int>(part.dtype)][static_cast<int>(shape.op)];
  const double divisor = shape.op == ReduceOp::avg ? weight_sum : 1.0;
  fold({result.data(), sources, weights, divisor, part.count});
  return result;
}

}  // namespace pyccl::sim
