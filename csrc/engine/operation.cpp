// From a request to parts, and from parts to one outcome.
#include "engine/operation.hpp"

#include <algorithm>
#include <new>
#include <string>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "engine/layout.hpp"

namespace pyccl::engine {
namespace {

// Small operations are cut finer, so that what one rank folds overlaps with what the next receives;
// but not by much, for each segment costs a call of the system at both ends: 1 MiB in 4 pieces
// takes a fifth less time on one host than in 16.
std::uint32_t segment_bytes_for(std::uint64_t bytes, std::uint32_t most) {
  constexpr std::uint32_t least = 32 * 1024;
  std::uint32_t segment = least;
  while (segment < most && segment < bytes / 4) segment *= 2;
  return std::min(segment, most);
}

// Lists of the same elements in another division would be added up across their arrays. FNV-1a.
std::uint32_t layout_of(const Request& request, bool is_root) {
  if (request.arrays.size() <= 1) return 0;
  std::uint32_t sum = 2166136261u;
  const auto add = [&](std::uint64_t word) {
    for (int byte = 0; byte < 8; ++byte) {
      sum = (sum ^ static_cast<std::uint8_t>(word >> 8 * byte)) * 16777619u;
    }
  };
  for (const Array& array : request.arrays) {
    add(static_cast<std::uint64_t>(array.dtype));
    add(described_count(request, array, is_root));
  }
  return std::max(sum, 1u);
}

// zstd takes in about 400 MB/s of blocks, while what it has shortened leaves: it pays on links that
// take less, so never within a host. Of links that nobody has measured yet we expect that.
bool zstd_pays(const Attempt& attempt) {
  constexpr std::uint32_t zstd_mb_per_s = 400;
  return attempt.reach == collectives::Reach::network &&
         std::max(attempt.links.mesh_mb_per_s, attempt.links.ring_mb_per_s) < zstd_mb_per_s;
}

protocol::Collective collective_of(collectives::Kind kind) {
  using collectives::Kind;
  using protocol::Collective;
  switch (kind) {
    case Kind::all_reduce: return Collective::all_reduce;
    case Kind::barrier: return Collective::barrier;
    case Kind::all_gather: return Collective::all_gather;
    case Kind::all_to_all: return Collective::all_to_all;
    case Kind::reduce_scatter: return Collective::reduce_scatter;
    case Kind::broadcast: return Collective::broadcast;
    case Kind::reduce: return Collective::reduce;
    case Kind::gather: return Collective::gather;
    case Kind::scatter: return Collective::scatter;
    case Kind::send: return Collective::send;
    case Kind::exchange: break;
  }
  return Collective::exchange;
}

}  // namespace

Operation::Operation(Ticket ticket, Request request, PeerId root, bool is_root,
                     std::uint32_t segment_bytes_max, Time called, Pools& pools)
    : ticket_(ticket),
      request_(std::move(request)),
      weight_(reduces(request_.kind) ? request_.weight : 1.0),
      called_(called),
      pools_(pools) {
  for (const kernels::DataType dtype : types_of(request_))
    memory_.emplace_back(dtype, pools.memory);
  describe(root, is_root, segment_bytes_max);
}

void Operation::describe(PeerId root, bool is_root, std::uint32_t segment_bytes_max) {
  descriptor_.kind = collective_of(request_.kind);
  descriptor_.reduce_op =
      reduces(request_.kind) ? static_cast<std::uint8_t>(request_.op) : std::uint8_t{0};
  descriptor_.algorithm = static_cast<std::uint8_t>(request_.algorithm);
  describe_quantization();
  descriptor_.on_loss = static_cast<protocol::OnLoss>(request_.on_loss);
  descriptor_.root = root ? request_.root : -1;
  descriptor_.root_peer = root;
  descriptor_.shares = request_.shares;
  descriptor_.uneven = !request_.send_shares.empty() || !request_.receive_shares.empty();
  descriptor_.layout = layout_of(request_, is_root);
  std::uint64_t bytes = 0;
  for (const PartMemory& part : memory_) {
    std::uint64_t count = 0;
    for (const Array& array : request_.arrays) {
      const bool here = array.dtype == part.dtype();
      // What ranks may have differently is described elsewhere.
      if (here && request_.shares.empty() && !descriptor_.uneven) {
        count += described_count(request_, array, is_root);
      }
    }
    for (const std::uint64_t share : request_.shares)
      bytes += share * kernels::size_of(part.dtype());
    bytes += count * kernels::size_of(part.dtype());
    descriptor_.parts.push_back({static_cast<std::uint8_t>(part.dtype()), count});
  }
  descriptor_.segment_bytes =
      descriptor_.uneven ? segment_bytes_max : segment_bytes_for(bytes, segment_bytes_max);
}

void Operation::describe_quantization() {
  const Quantization& quantization = request_.quantization;
  if (!quantization.on()) return;
  descriptor_.codec = static_cast<std::uint8_t>(quantization.format.codec);
  descriptor_.block = quantization.format.block;
  descriptor_.scale_dtype = static_cast<std::uint8_t>(quantization.format.scale);
  descriptor_.partial_dtype = static_cast<std::uint8_t>(quantization.partial);
}

Status Operation::begin(const Attempt& attempt) {
  reset(attempt);
  if (descriptor_.root_peer) request_.root = rank_of(descriptor_.root_peer);
  const auto world = static_cast<Rank>(peers_.size());
  if (descriptor_.root_peer && request_.root < 0) {
    running_ = false;
    return Status(Code::peer_lost, "its root is not in the view any more", descriptor_.root_peer);
  }
  const bool changed = request_.world != 0 && request_.world != world;
  if (changed && cut_by_rank(request_)) {
    // Sizes might fit by chance, in another division than the caller's.
    PYCCL_MARK("arrays that were cut for other members");
    running_ = false;
    return Status(Code::peer_lost, "the members have changed since the call: there are " +
                                       std::to_string(world) + ", and the arrays were cut for " +
                                       std::to_string(request_.world));
  }
  if (const Status status = fits(request_, self_rank_, world); !status.ok()) {
    running_ = false;
    if (!changed && attempt_ == 1) return status;
    return Status(Code::peer_lost, "the members have changed since the call: " + status.reason());
  }
  try {
    run(attempt);
    return {};
  } catch (const std::bad_alloc&) {
    halt();
    return out_of_memory();
  }
}

Status Operation::out_of_memory() const {
  std::uint64_t bytes = 0;
  for (const Array& array : request_.arrays) {
    bytes += std::max(array.input_count, array.output_count) * kernels::size_of(array.dtype);
  }
  if (request_.quantization.on()) bytes *= 3;
  return Status(Code::limit_exceeded,
                "rank " + std::to_string(self_rank_) + " has too little memory for " +
                    to_string(descriptor_) + ": beyond the arrays it may need " +
                    (request_.quantization.on() ? "three times what" : "as much as") +
                    " they hold, " + std::to_string(bytes) +
                    " bytes. Free memory there, reduce less at once, or give outputs apart from "
                    "the inputs",
                peers_[static_cast<std::size_t>(self_rank_)]);
}

void Operation::reset(const Attempt& attempt) {
  halt();
  id_ = attempt.id;
  attempt_ = attempt.number;
  peers_ = attempt.peers;
  ranks_.clear();
  for (std::size_t i = 0; i < peers_.size(); ++i) ranks_[peers_[i]] = static_cast<Rank>(i);
  posted_.assign(peers_.size(), false);
  contributors_ = {std::vector<double>(peers_.size(), 0.0), 0, 0.0};
  bytes_sent_ = bytes_received_ = plain_bytes_ = packed_bytes_ = 0;
  largest_step_ = 0.0f;
  told_whole_ = false;
  running_ = true;
  self_rank_ = rank_of(attempt.self);
  PYCCL_ASSERT(self_rank_ >= 0);
}

void Operation::run(const Attempt& attempt) {
  for (std::size_t i = 0; i < memory_.size(); ++i) run_part(i, attempt);
  posted(attempt.self, weight_);
  for (auto& part : parts_) part->start();
}

ChosenProgram Operation::program_of(const PartMemory& part, collectives::Shape shape,
                                    const Attempt& attempt) {
  std::uint64_t bytes = kernels::size_of(part.dtype());
  if (request_.quantization.on()) {
    bytes = CodedData::sizes_of(request_.quantization, part.dtype()).largest();
    PYCCL_ASSERT(bytes <= pools_.slots.slot_bytes());
    // Alone, a segment's numbers are copied from array to array, of which there may be many.
    if (shape.world == 1) bytes = descriptor_.segment_bytes;
  }
  const std::uint64_t elements = std::max<std::uint64_t>(descriptor_.segment_bytes / bytes, 1);
  return pools_.programs.get({request_.kind, algorithm_of(request_), self_rank_, std::move(shape),
                              attempt.links, attempt.reach, elements});
}

PartData& Operation::data_of(PartMemory& part, CodedData::Extent extent, const Attempt& attempt) {
  const Quantization& quantization = request_.quantization;
  const std::uint64_t number_bytes = kernels::size_of(part.dtype());
  if (quantization.on() && peers_.size() > 1) {
    const bool compresses = quantization.zstd && zstd_pays(attempt);
    coded_.push_back(std::make_unique<CodedData>(quantization, weight_, part, extent, pools_.memory,
                                                 pools_.zstd, compresses));
    return *coded_.back();
  }
  // Alone nothing travels, and so nothing is rounded.
  const std::uint64_t block = quantization.on() ? quantization.format.block : 1;
  PlainData& plain = parts_.back()->plain();
  plain.begin(part, static_cast<kernels::ReduceOp>(descriptor_.reduce_op), weight_,
              block * number_bytes);
  if (request_.packable && peers_.size() > 1) {
    const bool slow = attempt.reach == collectives::Reach::network;
    packed_ = std::make_unique<PackedData>(
        plain, PackedData::Extent{extent.inputs * number_bytes, descriptor_.segment_bytes},
        request_.input_pieces, slow ? request_.input_widths : std::vector<std::uint8_t>{},
        pools_.memory, pools_.zstd);
    return *packed_;
  }
  return plain;
}

void Operation::run_part(std::size_t index, const Attempt& attempt) {
  PartMemory& part = memory_[index];
  const auto world = static_cast<Rank>(peers_.size());
  PartLayout layout = lay_out(request_, part.dtype(), self_rank_, world);
  const Quantization& quantization = request_.quantization;
  const bool coded = quantization.on();
  const std::uint64_t size = kernels::size_of(part.dtype());
  const auto sizes =
      coded ? CodedData::sizes_of(quantization, part.dtype()) : CodedData::Sizes{size, size, size};
  CodedData::Extent extent;
  extent.inputs = layout.inputs.bytes() / sizes.memory;
  extent.results = layout.results.bytes() / sizes.memory;
  ChosenProgram chosen = program_of(part, std::move(layout.shape), attempt);
  algorithm_ = chosen.algorithm;
  const Program& program = *chosen.program;
  extent.segment = program.segment_elements;
  // What was overwritten in place is still known there.
  const bool paired = layout.overlap == Overlap::paired;
  if (!paired || !part.laid_out()) {
    part.lay_out(std::move(layout.inputs), std::move(layout.results), layout.overlap,
                 descriptor_.segment_bytes, !coded);
  }
  // Until the result stands its blocks are enough, and take less than to keep the input.
  const bool held =
      coded && world > 1 && request_.kind == collectives::Kind::all_reduce && part.in_place();
  extent.held = held;
  Demand demand;
  // Sums of blocks are no numbers of the arrays' type, and so don't lie among their results.
  demand.partial_in_result = program.partial_in_result && !coded;
  demand.partial_bytes = program.partial_count * sizes.partial;
  demand.snapshot = program.overwrites_unsent && world > 1 && !held;
  // Alone and without a factor the result is the input, so nothing needs to be kept.
  demand.keeps = (world > 1 || weight_ != 1.0) && !held;
  part.begin(demand);
  const PartRunOptions options{static_cast<std::uint16_t>(index), weight_,
                               reduces(request_.kind) && request_.op == kernels::ReduceOp::avg};
  parts_.push_back(pools_.runs.take());
  PartData& data = data_of(part, extent, attempt);
  parts_.back()->begin(options, std::move(chosen.program), data, contributors_, pools_.slots);
}

void Operation::end_run() {
  parts_.clear();
  running_ = false;
}

void Operation::halt() {
  end_run();
  for (const auto& data : coded_) {
    largest_step_ = std::max(largest_step_, data->largest_step());
    plain_bytes_ += data->plain_bytes();
    packed_bytes_ += data->packed_bytes();
  }
  coded_.clear();
  if (packed_ != nullptr) {
    plain_bytes_ += packed_->plain_bytes();
    packed_bytes_ += packed_->packed_bytes();
    packed_.reset();
  }
}

void Operation::commit() {
  PYCCL_ASSERT(running_);  // or what its blocks hold is lost
  end_run();
}

bool Operation::publish(std::uint64_t bytes) {
  for (const auto& data : coded_) {
    if (data->publish(bytes)) return true;
  }
  halt();
  for (PartMemory& part : memory_) {
    part.publish();
    part.release();
  }
  return false;
}

void Operation::roll_back() {
  halt();
  for (PartMemory& part : memory_) {
    part.restore();
    part.release();
  }
}

std::int32_t Operation::rank_of(PeerId peer) const {
  const auto found = ranks_.find(peer);
  return found == ranks_.end() ? -1 : found->second;
}

bool Operation::has_posted(PeerId peer) const {
  const Rank rank = rank_of(peer);
  return rank >= 0 && posted_[static_cast<std::size_t>(rank)];
}

void Operation::posted(PeerId peer, double weight) {
  const Rank rank = rank_of(peer);
  if (rank < 0 || posted_[static_cast<std::size_t>(rank)]) return;
  posted_[static_cast<std::size_t>(rank)] = true;
  contributors_.weights[static_cast<std::size_t>(rank)] = weight;
  ++contributors_.posted;
  if (!contributors_.all_posted()) return;
  // In rank order, so that all members add up to the same bits.
  for (double each : contributors_.weights) contributors_.weight_sum += each;
  for (auto& part : parts_) part->all_posted();
}

bool Operation::without_contributors() const {
  return all_posted() && reduces(request_.kind) && contributors_.weight_sum == 0.0;
}

bool Operation::has_work() const {
  return running_ &&
         std::ranges::any_of(parts_, [](const auto& part) { return part->has_copies(); });
}

bool Operation::work(std::uint64_t bytes) {
  if (!running_) return false;
  for (auto& part : parts_) {
    if (part->copy_some(bytes)) return true;
  }
  return false;
}

void Operation::segment(PeerId from, const transport::SegmentHeader& header,
                        transport::ReadToken token, transport::MutablePieces& target) {
  const Rank rank = rank_of(from);
  if (rank < 0 || header.part >= parts_.size()) return;
  parts_[header.part]->segment(rank, header, token, target);
}

Status Operation::segment_end(PeerId from, const transport::SegmentHeader& header,
                              transport::ReadToken token, bool complete) {
  const Rank rank = rank_of(from);
  if (rank < 0 || header.part >= parts_.size()) return {};
  const bool readable = parts_[header.part]->segment_end(rank, token, complete);
  if (complete) bytes_received_ += header.length;
  if (readable) return {};
  return Status(Code::protocol_violation,
                "rank " + std::to_string(self_rank_) + " can't decompress what rank " +
                    std::to_string(rank) + " has sent for " + to_string(descriptor_),
                from);
}

std::vector<std::pair<PeerId, transport::ReadToken>> Operation::reads() const {
  std::vector<std::pair<PeerId, transport::ReadToken>> tokens;
  for (const auto& part : parts_) {
    for (const PartRun::Read& read : part->reads()) {
      tokens.emplace_back(peers_[static_cast<std::size_t>(read.from)], read.token);
    }
  }
  return tokens;
}

bool Operation::has_segment(PeerId to) const {
  const Rank rank = rank_of(to);
  if (rank < 0) return false;
  return std::ranges::any_of(parts_, [&](const auto& part) { return part->has_segment(rank); });
}

bool Operation::next_segment(PeerId to, transport::SegmentHeader& header,
                             transport::Pieces& pieces) {
  const Rank rank = rank_of(to);
  if (rank < 0) return false;
  header.op = id_;
  for (auto& part : parts_) {
    if (!part->next_segment(rank, header, pieces)) continue;
    if (!header.empty) bytes_sent_ += header.length;
    return true;
  }
  return false;
}

bool Operation::became_whole() {
  if (told_whole_ || !running_ || !all_posted()) return false;
  if (!std::ranges::all_of(parts_, [](const auto& part) { return part->whole(); })) return false;
  told_whole_ = true;
  return true;
}

OperationInfo Operation::info(Time now, bool peers_pending) const {
  OperationInfo info;
  info.members = static_cast<std::int32_t>(peers_.size());
  info.world_size = static_cast<std::int32_t>(
      std::ranges::count_if(contributors_.weights, [](double weight) { return weight > 0.0; }));
  info.epoch = id_.epoch;
  info.attempts = attempt_;
  info.bytes_sent = bytes_sent_;
  info.bytes_received = bytes_received_;
  if (plain_bytes_ > 0) {
    info.wire_ratio = static_cast<double>(bytes_sent_) / static_cast<double>(plain_bytes_);
  }
  info.bytes_packed = packed_bytes_;
  info.quantization_step = largest_step_;
  info.weight_sum = contributors_.weight_sum;
  info.seconds = std::chrono::duration<double>(now - called_).count();
  info.algorithm = collectives::name_of(algorithm_);
  info.peers_pending = peers_pending;
  info.source = request_.source;
  return info;
}

}  // namespace pyccl::engine
