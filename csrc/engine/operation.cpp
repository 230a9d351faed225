// From a request to parts, and from parts to one outcome.
#include "engine/operation.hpp"

#include <algorithm>
#include <new>
#include <string>

#include "base/assert.hpp"
#include "base/mark.hpp"

namespace pyccl::engine {
namespace {

// Small operations are cut finer, so that what one rank folds overlaps with what the next receives.
std::uint32_t segment_bytes_for(std::uint64_t bytes, std::uint32_t most) {
  constexpr std::uint32_t least = 32 * 1024;
  std::uint32_t segment = least;
  while (segment < most && segment < bytes / 16) segment *= 2;
  return std::min(segment, most);
}

bool uses_partial(const collectives::Plan& plan) {
  for (const collectives::Step& step : plan) {
    for (const collectives::Fold& fold : step.folds) {
      if (!fold.final) return true;
    }
    for (const collectives::Send& send : step.sends) {
      if (send.source == collectives::Source::weighted_input) return true;
    }
  }
  return false;
}

// Lists of the same elements in another division would be added up across their arrays. FNV-1a.
std::uint32_t layout_of(const std::vector<Array>& arrays) {
  if (arrays.size() <= 1) return 0;
  std::uint32_t sum = 2166136261u;
  const auto add = [&](std::uint64_t word) {
    for (int byte = 0; byte < 8; ++byte) {
      sum = (sum ^ static_cast<std::uint8_t>(word >> 8 * byte)) * 16777619u;
    }
  };
  for (const Array& array : arrays) {
    add(static_cast<std::uint64_t>(array.dtype));
    add(array.count);
  }
  return std::max(sum, 1u);
}

}  // namespace

Operation::Operation(Ticket ticket, protocol::Collective kind, const AllReduceRequest& request,
                     std::uint32_t segment_bytes_max, Time called, Pools& pools)
    : ticket_(ticket), weight_(request.weight), called_(called), pools_(pools) {
  std::uint64_t bytes = 0;
  for (const Array& array : request.arrays) {
    auto part = std::ranges::find(memory_, array.dtype, &PartMemory::dtype);
    if (part == memory_.end()) {
      memory_.emplace_back(array.dtype, pools.memory);
      part = memory_.end() - 1;
    }
    part->add(array);
    bytes += array.count * kernels::size_of(array.dtype);
  }
  descriptor_.kind = kind;
  descriptor_.reduce_op = static_cast<std::uint8_t>(request.op);
  descriptor_.algorithm = static_cast<std::uint8_t>(request.algorithm);
  descriptor_.on_loss = static_cast<protocol::OnLoss>(request.on_loss);
  descriptor_.segment_bytes = segment_bytes_for(bytes, segment_bytes_max);
  descriptor_.layout = layout_of(request.arrays);
  for (PartMemory& part : memory_) {
    part.seal(descriptor_.segment_bytes);
    descriptor_.parts.push_back({static_cast<std::uint8_t>(part.dtype()), part.count()});
  }
}

collectives::AllReduceShape Operation::shape_of(const PartMemory& part) const {
  return {static_cast<Rank>(peers_.size()), part.count(), kernels::size_of(part.dtype())};
}

// Alone and without a factor the result is the input, so nothing needs to be kept.
Backup Operation::backup_for(bool uses_partial) const {
  if (peers_.size() == 1 && weight_ == 1.0 && !uses_partial) return Backup::none;
  return algorithm_ == collectives::Algorithm::one_shot ? Backup::snapshot : Backup::ranges;
}

Status Operation::begin(OpId id, std::uint32_t attempt, PeerId self,
                        const std::vector<PeerId>& peers, collectives::Reach reach) {
  try {
    run(id, attempt, self, peers, reach);
    return {};
  } catch (const std::bad_alloc&) {
    halt();
    return out_of_memory();
  }
}

Status Operation::out_of_memory() const {
  std::uint64_t bytes = 0;
  for (const PartMemory& part : memory_) bytes += part.bytes();
  return Status(Code::limit_exceeded,
                "rank " + std::to_string(self_rank_) + " has too little memory for " +
                    to_string(descriptor_) +
                    ": beyond the arrays it may need as much as they hold, " +
                    std::to_string(bytes) +
                    " bytes. Free memory there, reduce less at once, or give outputs apart from "
                    "the inputs",
                peers_[static_cast<std::size_t>(self_rank_)]);
}

void Operation::run(OpId id, std::uint32_t attempt, PeerId self, const std::vector<PeerId>& peers,
                    collectives::Reach reach) {
  halt();
  id_ = id;
  attempt_ = attempt;
  peers_ = peers;
  ranks_.clear();
  for (std::size_t i = 0; i < peers.size(); ++i) ranks_[peers[i]] = static_cast<Rank>(i);
  posted_.assign(peers.size(), false);
  contributors_ = {std::vector<double>(peers.size(), 0.0), 0, 0.0};
  bytes_sent_ = bytes_received_ = 0;
  told_whole_ = false;
  running_ = true;
  const Rank rank = self_rank_ = rank_of(self);
  PYCCL_ASSERT(rank >= 0);
  const auto forced = static_cast<collectives::Algorithm>(descriptor_.algorithm);
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    PartMemory& part = memory_[i];
    const collectives::AllReduceShape shape = shape_of(part);
    algorithm_ = collectives::choose_all_reduce(shape, forced);
    collectives::Plan plan = collectives::make_all_reduce(algorithm_, rank, shape, reach);
    const bool partial = uses_partial(plan);
    part.begin(partial, backup_for(partial));
    const PartRunOptions options{static_cast<std::uint16_t>(i), rank, weight_,
                                 static_cast<kernels::ReduceOp>(descriptor_.reduce_op),
                                 descriptor_.segment_bytes};
    parts_.push_back(
        std::make_unique<PartRun>(options, std::move(plan), part, contributors_, pools_.slots));
  }
  posted(self, weight_);
  for (auto& part : parts_) part->start();
}

void Operation::halt() {
  parts_.clear();
  running_ = false;
}

void Operation::commit() {
  halt();
  for (PartMemory& part : memory_) {
    part.publish();
    part.release();
  }
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

void Operation::segment(PeerId from, const transport::SegmentHeader& header,
                        transport::ReadToken token, transport::MutablePieces& target) {
  const Rank rank = rank_of(from);
  if (rank < 0 || header.part >= parts_.size()) return;
  parts_[header.part]->segment(rank, header, token, target);
}

void Operation::segment_end(PeerId from, const transport::SegmentHeader& header,
                            transport::ReadToken token, bool complete) {
  const Rank rank = rank_of(from);
  if (rank < 0 || header.part >= parts_.size()) return;
  parts_[header.part]->segment_end(rank, token, complete);
  if (complete) bytes_received_ += header.length;
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
  info.weight_sum = contributors_.weight_sum;
  info.seconds = std::chrono::duration<double>(now - called_).count();
  info.algorithm = collectives::name_of(algorithm_);
  info.peers_pending = peers_pending;
  return info;
}

}  // namespace pyccl::engine
