// Where segments meet operations: routing what arrives, choosing what leaves, keeping early data.
#include "engine/executor.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"

namespace pyccl::engine {
namespace {

constexpr std::uint64_t work_bytes = 1 << 20;  // of an operation and turn

}  // namespace

void Executor::add(OpKey key, std::unique_ptr<Operation> operation) {
  auto& next = next_seq_[{key.group, key.tag}];
  next = std::max(next, key.seq + 1);
  operations_[key] = std::move(operation);
}

Operation* Executor::find(OpKey key) {
  const auto found = operations_.find(key);
  return found == operations_.end() ? nullptr : found->second.get();
}

bool Executor::finished(OpKey key) const {
  const auto next = next_seq_.find({key.group, key.tag});
  return next != next_seq_.end() && key.seq < next->second && !operations_.contains(key);
}

void Executor::start(OpId id, std::uint32_t attempt, const std::vector<PeerId>& peers,
                     const collectives::Links& links) {
  Operation* operation = find(id.key);
  PYCCL_ASSERT(operation != nullptr);
  halt(*operation);
  const bool near = std::ranges::all_of(peers, [&](PeerId peer) {
    const transport::Channel* channel = host_.channel(peer);
    return peer == self_ || (channel != nullptr && channel->same_host());
  });
  const Status begun =
      operation->begin({id, attempt, self_, peers, links,
                        near ? collectives::Reach::same_host : collectives::Reach::network});
  for (;;) {
    const auto early = stashed_.lower_bound({id, {}, 0, 0, 0});
    if (early == stashed_.end() || early->first.op != id) break;
    PYCCL_MARK("data comes before the operation is posted");
    const auto segment = stashed_.extract(early);
    stash_bytes_[segment.key().from] -= cost_of(segment.mapped().header);
    if (begun.ok()) replay(*operation, segment.key().from, segment.mapped());
  }
  if (!begun.ok()) return host_.operation_refused(id.key, begun);
  check_whole(*operation);
}

void Executor::replay(Operation& operation, PeerId from, const Stashed& stashed) {
  transport::MutablePieces target;
  const transport::ReadToken token = ++local_token_;
  deliver(operation, from, stashed.header, token, target);
  if (target.empty()) return;
  std::size_t done = 0;
  for (const MutableByteView piece : target.view()) {
    std::memcpy(piece.data(), stashed.payload.data() + done, piece.size());
    done += piece.size();
  }
  end_segment(operation, from, stashed.header, token, true);
}

void Executor::end_segment(Operation& operation, PeerId from,
                           const transport::SegmentHeader& header, transport::ReadToken token,
                           bool complete) {
  const Status status = operation.segment_end(from, header, token, complete);
  if (!status.ok()) host_.operation_refused(operation.id().key, status);
}

void Executor::peer_posted(OpId id, PeerId peer, double weight) {
  Operation* operation = find(id.key);
  if (operation == nullptr || operation->id() != id || !operation->running()) return;
  const auto eager = eager_by_operation_.find({id.key, peer});
  if (eager != eager_by_operation_.end()) {
    eager_sent_[peer] -= eager->second;
    eager_by_operation_.erase(eager);
  }
  operation->posted(peer, weight);
  check_whole(*operation);
}

void Executor::halt(Operation& operation) {
  silence(operation);
  operation.halt();
}

// Nothing of it is under way any more.
void Executor::silence(Operation& operation) {
  if (!operation.running()) return;
  for (const PeerId peer : operation.peers()) {
    transport::Channel* channel = host_.channel(peer);
    if (channel != nullptr) channel->forget(operation.id());
  }
  for (const auto& [peer, token] : operation.reads()) {
    transport::Channel* channel = host_.channel(peer);
    if (channel != nullptr) channel->redirect(token);
  }
}

std::unique_ptr<Operation> Executor::finish(OpKey key, bool committed) {
  const auto found = operations_.find(key);
  if (found == operations_.end()) return nullptr;
  std::unique_ptr<Operation> operation = std::move(found->second);
  silence(*operation);
  operations_.erase(found);
  // What was sent ahead to those that have not posted it stays with them until the next view.
  std::erase_if(eager_by_operation_, [&](const auto& entry) { return entry.first.first == key; });
  if (committed) {
    operation->commit();
  } else {
    operation->roll_back();
  }
  return operation;
}

void Executor::install(const protocol::View& view) {
  epoch_ = view.epoch;
  for (auto& [key, operation] : operations_) halt(*operation);
  eager_sent_.clear();
  eager_by_operation_.clear();
  std::erase_if(stashed_, [&](const auto& entry) {
    const auto& [place, stashed] = entry;
    if (place.op.epoch >= epoch_ || PYCCL_MUTANT("stash-kept-over-views")) return false;
    stash_bytes_[place.from] -= cost_of(stashed.header);
    return true;
  });
  // Whose channel has been closed ends no segment any more.
  const auto gone = [&](PeerId peer) { return view.find(peer) == nullptr; };
  std::erase_if(stashed_, [&](const auto& entry) { return gone(entry.first.from); });
  std::erase_if(stash_reads_, [&](const auto& entry) { return gone(entry.first.first); });
  std::erase_if(stash_bytes_, [&](const auto& entry) { return gone(entry.first); });
}

void Executor::segment(PeerId from, const transport::SegmentHeader& header,
                       transport::ReadToken token, transport::MutablePieces& target) {
  if (header.op.epoch < epoch_ && !PYCCL_MUTANT("forget-epoch-on-data")) {
    PYCCL_MARK("data of an older view");
    return;
  }
  Operation* operation = find(header.op.key);
  const bool current = operation != nullptr && operation->running() &&
                       (operation->id() == header.op || PYCCL_MUTANT("forget-epoch-on-data"));
  if (!current) {
    if (header.op.epoch == epoch_ && finished(header.op.key)) return;
    // Its attempt could not begin, so it has been refused: a decision follows.
    if (operation != nullptr && operation->id() == header.op) return;
    stash(from, header, token, target);
    return;
  }
  deliver(*operation, from, header, token, target);
  if (header.empty) check_whole(*operation);
}

// Without memory for what arrives it is thrown away, so the operation can't become whole here.
void Executor::deliver(Operation& operation, PeerId from, const transport::SegmentHeader& header,
                       transport::ReadToken token, transport::MutablePieces& target) {
  try {
    operation.segment(from, header, token, target);
  } catch (const std::bad_alloc&) {
    target = {};
    host_.operation_refused(operation.id().key, operation.out_of_memory());
  }
}

Executor::Place Executor::place_of(PeerId from, const transport::SegmentHeader& header) {
  return {header.op, from, header.part, header.step, header.offset};
}

void Executor::stash(PeerId from, const transport::SegmentHeader& header,
                     transport::ReadToken token, transport::MutablePieces& target) {
  if (header.length == 0 && !header.empty) return;  // nobody sends such; it says nothing
  const Place place = place_of(from, header);
  if (stashed_.contains(place)) {
    PYCCL_MARK("early data comes twice");
    return;
  }
  // Twice the budget: a sender may have gone on to the next view while this peer has not.
  std::uint64_t& bytes = stash_bytes_[from];
  if (bytes + cost_of(header) > 2 * eager_bytes_max) {
    PYCCL_MARK("early data beyond the budget");
    if (transport::Channel* channel = host_.channel(from)) channel->refuse(token);
    return;
  }
  bytes += cost_of(header);
  if (header.empty) {
    stashed_.emplace(place, Stashed{header, {}});
    return;
  }
  Stashed& read = stash_reads_[{from, token}];
  read = {header, Bytes(header.length)};
  target.push(read.payload);
}

// Over two connections two copies may have been on their way at once.
void Executor::keep(Place place, Stashed stashed) {
  const std::uint64_t cost = cost_of(stashed.header);
  if (!stashed_.emplace(place, std::move(stashed)).second) stash_bytes_[place.from] -= cost;
}

void Executor::segment_end(PeerId from, const transport::SegmentHeader& header,
                           transport::ReadToken token, bool complete) {
  const auto reading = stash_reads_.find({from, token});
  if (reading != stash_reads_.end()) {
    Stashed stashed = std::move(reading->second);
    stash_reads_.erase(reading);
    Operation* operation = find(header.op.key);
    const bool current =
        operation != nullptr && operation->running() && operation->id() == header.op;
    // Of a later view it is wanted even so: a number that was cancelled here may be used again.
    const bool over = header.op.epoch == epoch_ && finished(header.op.key);
    if (complete && !current && header.op.epoch >= epoch_ && !over) {
      keep(place_of(from, header), std::move(stashed));
      return;
    }
    stash_bytes_[from] -= cost_of(header);
    if (!complete || !current) return;
    replay(*operation, from, stashed);
    check_whole(*operation);
    return;
  }
  Operation* operation = find(header.op.key);
  if (operation == nullptr || !operation->running()) return;
  end_segment(*operation, from, header, token, complete);
  check_whole(*operation);
}

void Executor::check_whole(Operation& operation) {
  if (operation.without_contributors() && !operation.descriptor().parts.empty()) {
    host_.operation_refused(
        operation.id().key,
        Status(Code::invalid_argument, "the weights of all members are 0: nobody contributes"));
    return;
  }
  if (operation.became_whole()) host_.operation_whole(operation.id());
}

bool Executor::has_work() const {
  return std::ranges::any_of(operations_,
                             [](const auto& entry) { return entry.second->has_work(); });
}

bool Executor::work() {
  bool more = false;
  for (auto& [key, operation] : operations_) {
    if (!operation->running()) continue;
    more = operation->work(work_bytes) || more;
    check_whole(*operation);
  }
  return more;
}

std::uint64_t Executor::eager_budget(const Operation& operation,
                                     const transport::Channel& channel) const {
  const std::uint64_t share =
      eager_bytes_total / std::max<std::size_t>(operation.peers().size(), 1);
  return std::min(share, channel.same_host() ? eager_bytes_same_host : eager_bytes_max);
}

bool Executor::send_one(Operation& operation, PeerId peer, transport::Channel& channel) {
  if (!operation.running() || !operation.has_segment(peer)) return false;
  const bool open = operation.has_posted(peer);
  const std::uint32_t most = operation.descriptor().segment_bytes;
  const std::uint64_t eager = eager_segment_bytes + most;
  if (!open && eager_sent_[peer] + eager > eager_budget(operation, channel)) return false;
  transport::SegmentHeader header;
  transport::Pieces pieces;
  if (!operation.next_segment(peer, header, pieces)) return false;
  if (!open) {
    eager_sent_[peer] += cost_of(header);
    eager_by_operation_[{operation.id().key, peer}] += cost_of(header);
  }
  channel.send_segment(header, pieces);
  return true;
}

void Executor::pump(PeerId peer) {
  transport::Channel* channel = host_.channel(peer);
  if (channel == nullptr) return;
  // One segment of each operation in turn, so that a small one is not stuck behind a large one.
  bool more = true;
  while (more && channel->has_room()) {
    more = false;
    for (auto& [key, operation] : operations_) {
      if (!channel->has_room()) break;
      more = send_one(*operation, peer, *channel) || more;
    }
  }
}

void Executor::pump() {
  std::vector<PeerId> peers;
  for (auto& [key, operation] : operations_) {
    for (const PeerId peer : operation->peers()) {
      if (peer != self_ && operation->running() && operation->has_segment(peer)) {
        peers.push_back(peer);
      }
    }
  }
  std::ranges::sort(peers);
  const auto repeated = std::ranges::unique(peers);
  peers.erase(repeated.begin(), repeated.end());
  for (const PeerId peer : peers) pump(peer);
}

PeerLoad Executor::load() const {
  PeerLoad load{operations_.size(), pools_.slots.slots_out(), 0, 0};
  for (const auto& [peer, bytes] : stash_bytes_) {
    load.stash_bytes += bytes;
    load.stash_bytes_most = std::max(load.stash_bytes_most, bytes);
  }
  return load;
}

void Executor::trim() {
  pools_.memory.trim();
  pools_.slots.trim();
  pools_.programs.trim();
  pools_.runs.trim();
}

}  // namespace pyccl::engine
