// The passes of a sync, and their windows; see state_sync.hpp.
#include <algorithm>
#include <iterator>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "engine/state_sync.hpp"

namespace pyccl::engine {
namespace {

using protocol::Move;

// Those of a window that concern one rank, by the rank at their other end, which is how an
// all_to_all lays them out.
std::vector<Move> sent_by(std::span<const Move> window, Rank rank) {
  std::vector<Move> moves;
  std::ranges::copy_if(window, std::back_inserter(moves),
                       [&](const Move& move) { return move.from == rank; });
  std::ranges::stable_sort(moves, {}, &Move::to);
  return moves;
}

std::vector<Move> received_by(std::span<const Move> window, Rank rank) {
  std::vector<Move> moves;
  std::ranges::copy_if(window, std::back_inserter(moves),
                       [&](const Move& move) { return move.to == rank; });
  std::ranges::stable_sort(moves, {}, &Move::from);
  return moves;
}

}  // namespace

// All that was under way has arrived, and these are the standings.
void StateSync::begin_moving() {
  std::uint64_t lacking = 0;
  for (std::size_t i = 0; i < standings_.size(); ++i) {
    const auto& lacks = standings_[i].lacks;
    std::uint64_t bytes = 0;
    for (std::size_t b = 0; b < lacks.size(); ++b) bytes += lacks[b] ? state_.block_bytes()[b] : 0;
    if (bytes == 0) continue;
    lacking += bytes;
    const protocol::StateReport& report = reports_[i];
    behind_.try_emplace(report.peer, SyncInfo::Behind{report.peer, report.revision, true});
  }
  bytes_to_move_ = bytes_moved_ + lacking;
  if (lacking == 0) return conclude();
  assigned_.assign(peers_.size(), std::vector<bool>(state_.block_count()));
  assigned_bytes_.assign(peers_.size(), 0);
  queue_.clear();
  posts_ = arrived_ = 0;
  broken_ = {};
  if (plan_pass() > 0) return go_to(Phase::moving);
  finish(Status(Code::state_sync,
                "no member that is left and may send has the blocks that are lacking"));
}

bool StateSync::all_near() const {
  for (std::size_t i = 0; i < standings_.size(); ++i) {
    for (std::size_t to = 0; to < standings_.size(); ++to) {
      if (to != i && standings_[i].mb_per_s[to] != near_mb_per_s) return false;
    }
  }
  return true;
}

// How many moves there are.
std::uint64_t StateSync::plan_pass() {
  std::uint64_t wanted = 0;
  for (std::size_t i = 0; i < standings_.size(); ++i) {
    const auto& lacks = standings_[i].lacks;
    standings_[i].expects = assigned_[i];
    for (std::size_t b = 0; b < lacks.size(); ++b) wanted += lacks[b] && !assigned_[i][b] ? 1 : 0;
  }
  const std::uint64_t most = *std::ranges::max_element(assigned_bytes_);
  moves_ = protocol::plan_moves(standings_, state_.block_bytes(),
                                std::max(options_.pass_bytes, most / 4));
  for (const Move& move : moves_) {
    const auto to = static_cast<std::size_t>(move.to);
    assigned_[to][move.block] = true;
    assigned_bytes_[to] += state_.block_bytes()[move.block];
  }
  const std::uint64_t window_bytes =
      all_near() ? std::min(options_.near_window_bytes, options_.window_bytes)
                 : options_.window_bytes;
  const auto windows = protocol::cut(moves_, state_.block_bytes(), window_bytes);
  // Of what nobody can send at present, something may be where it is needed by then.
  const bool more = !moves_.empty() && wanted > moves_.size();
  const std::size_t last = std::min(options_.windows_ahead - 1, windows.size());
  for (std::size_t i = 0; i < windows.size(); ++i) {
    if (more && i == windows.size() - last) queue_.emplace_back();
    queue_.emplace_back(windows[i].begin(), windows[i].end());
  }
  if (more && last == 0) queue_.emplace_back();
  pass_begins_ = !moves_.empty();
  return moves_.size();
}

bool StateSync::may_post_move() const {
  if (PYCCL_MUTANT("stops-posting-at-a-loss") && !broken_.ok()) return false;
  return !queue_.empty() && posts_ < arrived_ + options_.windows_ahead;
}

StateSync::Samples StateSync::samples() const {
  constexpr std::size_t samples_max = 3;
  Samples samples;
  if (phase_ != Phase::moving || !pass_begins_) return samples;
  const std::vector<Move> sent = sent_by(moves_, rank_);
  // From all over the pass: tensors differ.
  const std::size_t step = sent.size() / samples_max + 1;
  for (std::size_t i = step / 2; i < sent.size(); i += step) {
    samples.blocks.push_back({intake_.block(sent[i].block), state_.width(sent[i].block)});
  }
  for (const Move& move : sent) samples.receivers.insert(move.to);
  return samples;
}

Request StateSync::post_move(const Place& place) {
  pass_begins_ = false;
  ++posts_;
  if (!queue_.front().empty()) return post_window();
  PYCCL_MARK("asked while windows are under way");
  queue_.pop_front();
  return post_standing(place);
}

Request StateSync::post_window() {
  Posted posted;
  posted.window = std::move(queue_.front());
  queue_.pop_front();
  Request request;
  request.kind = collectives::Kind::all_to_all;
  request.send_shares.resize(peers_.size());
  request.receive_shares.resize(peers_.size());
  Array array{.dtype = kernels::DataType::u8};
  for (const Move& move : sent_by(posted.window, rank_)) {
    const ByteView block = intake_.block(move.block);
    request.input_pieces.push_back(block);
    if (compresses_) request.input_widths.push_back(state_.width(move.block));
    request.send_shares[static_cast<std::size_t>(move.to)] += block.size();
    array.input_count += block.size();
  }
  for (const Move& move : received_by(posted.window, rank_)) {
    const std::uint64_t bytes = state_.block_bytes()[move.block];
    request.receive_shares[static_cast<std::size_t>(move.from)] += bytes;
    array.output_count += bytes;
  }
  posted.received = intake_.window(window_number_++, array.output_count);
  array.output = posted.received;
  request.arrays.push_back(array);
  request.packable = true;
  posted_.push_back(std::move(posted));
  return of_sync(std::move(request));
}

void StateSync::move_ended(const Posted& posted, const Status& status) {
  Status outcome = status;
  if (status.ok() && !posted.window.empty()) take_window(posted);
  // Behind something that has failed nobody goes on.
  if (status.ok() && posted.window.empty() && broken_.ok()) {
    outcome = take_standings(posted.output);
    if (outcome.ok()) plan_pass();
  }
  if (broken_.ok()) {
    if (outcome.ok()) ++arrived_;
    broken_ = std::move(outcome);
  }
  if (!posted_.empty() || may_post_move()) return;
  intake_.settle();
  if (!broken_.ok()) return give_up(broken_);
  go_to(Phase::standing);
}

void StateSync::take_window(const Posted& posted) {
  for (const Move& move : posted.window) bytes_moved_ += state_.block_bytes()[move.block];
  const std::byte* bytes = posted.received;
  for (const Move& move : received_by(posted.window, rank_)) {
    const std::uint64_t size = state_.block_bytes()[move.block];
    const PeerId from = peers_[static_cast<std::size_t>(move.from)];
    if (intake_.take(move.block, bytes)) {
      ++info_.blocks_fetched;
      info_.bytes_fetched += size;
      fetched_[from] += size;
    } else {
      complaints_.insert(from);
    }
    bytes += size;
  }
}

}  // namespace pyccl::engine
