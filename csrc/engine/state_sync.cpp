// From phase to phase; see state_sync.hpp. What stands in the operations' bytes is in
// state_sync_messages.cpp.
#include "engine/state_sync.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "engine/state_schema.hpp"

namespace pyccl::engine {
namespace {

using protocol::Move;
using protocol::Strategy;

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

StateSync::StateSync(SharedState& state, const SyncOptions& options, PeerId self)
    : state_(state),
      options_(options),
      self_(self),
      intake_(state, {options.window_bytes, options.windows_ahead, options.staged_bytes_max}),
      pass_bytes_(options.pass_bytes) {
  PYCCL_ASSERT(options.windows_ahead > 0 && options.window_bytes > 0 && options.pass_bytes > 0);
}

StateSync::Need StateSync::need() const {
  switch (phase_) {
    case Phase::over: return Need::over;
    case Phase::digest: return Need::digest;
    case Phase::moving: return may_post_window() ? Need::post : Need::wait;
    default: return posted_.empty() ? Need::post : Need::wait;
  }
}

bool StateSync::may_post_window() const {
  const bool in_step = next_window_ < arrived_ + options_.windows_ahead;
  if (PYCCL_MUTANT("stops-posting-at-a-loss") && !broken_.ok()) return false;
  return next_window_ < windows_.size() && in_step;
}

void StateSync::digested() {
  PYCCL_ASSERT(phase_ == Phase::digest);
  if (after_digest_ == Phase::standing) intake_.compare();
  go_to(after_digest_);
}

Rank StateSync::rank_of(PeerId peer) const {
  const auto found = std::ranges::find(peers_, peer);
  return found == peers_.end() ? -1 : static_cast<Rank>(found - peers_.begin());
}

Request StateSync::next_request(const Place& place) {
  PYCCL_ASSERT(need() == Need::post);
  switch (phase_) {
    case Phase::report: return post_report(place);
    case Phase::schema: return post_schema();
    case Phase::table: return post_table();
    case Phase::standing: return post_standing(place);
    default: return post_window();
  }
}

void StateSync::ended(const Status& status, const OperationInfo& info) {
  PYCCL_ASSERT(!posted_.empty());
  const Posted posted = std::move(posted_.front());
  posted_.pop_front();
  info_.bytes_sent += info.bytes_sent;
  info_.bytes_received += info.bytes_received;
  info_.peers_pending = info.peers_pending;
  if (phase_ == Phase::moving) return window_ended(posted, status);
  if (!status.ok()) return give_up(status);
  switch (phase_) {
    case Phase::report: return take_reports(posted.output);
    case Phase::schema: return take_schemas(posted.output);
    case Phase::table: return take_table(posted.output);
    default: return take_standings(posted.output);
  }
}

// Where a member is lost the others begin again; whatever else has failed an operation has failed
// it for all.
void StateSync::give_up(const Status& status) {
  if (status.code() != Code::peer_lost) return finish(status);
  PYCCL_MARK("a member is lost during a sync");
  ++info_.attempts;
  go_to(Phase::report);
}

void StateSync::finish(Status status) {
  status_ = std::move(status);
  if (!status_.ok() && !state_.whole()) {
    PYCCL_MARK("a sync leaves void tensors");
    std::string names;
    const std::vector<std::string> tensors = state_.void_tensors();
    for (std::size_t i = 0; i < tensors.size() && i < 8; ++i) {
      names += (i == 0 ? "'" : ", '") + tensors[i] + "'";
    }
    if (tensors.size() > 8) names += " and " + std::to_string(tensors.size() - 8) + " more";
    status_ = Status(status_.code(),
                     status_.reason() + ". Here parts of " + names +
                         " have been overwritten, and are void until a sync succeeds or the "
                         "tensors are loaded again",
                     status_.peer());
  }
  go_to(Phase::over);
}

void StateSync::conclude() {
  intake_.settle();
  state_.complete(election_.revision);
  state_.synced();
  info_.revision = election_.revision;
  info_.digest = election_.content;
  info_.peers = peers_;
  for (const auto& [peer, bytes] : fetched_) info_.sources.push_back({peer, bytes});
  for (const auto& [peer, behind] : behind_) info_.behind.push_back(behind);
  info_.refuted.assign(distrusted_.begin(), distrusted_.end());
  // By rank, and who is lost first.
  std::ranges::sort(info_.sources, {}, [this](const auto& each) { return rank_of(each.peer); });
  std::ranges::sort(info_.behind, {}, [this](const auto& each) { return rank_of(each.peer); });
  std::ranges::sort(info_.refuted, {}, [this](PeerId peer) { return rank_of(peer); });
  finish({});
}

// ---- report
void StateSync::take_reports(const Bytes& gathered) {
  reports_.clear();
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    const auto report =
        protocol::load_state_report(gathered.data() + i * protocol::state_report_bytes);
    if (!report.ok()) return finish(report.status());
    reports_.push_back(report.value());
  }
  const auto differs = [this](const auto& each) { return each.schema != reports_.front().schema; };
  if (std::ranges::any_of(reports_, differs)) return go_to(Phase::schema);
  const auto elected = protocol::elect(reports_);
  if (!elected.ok()) return finish(elected.status());
  election_ = elected.value();
  const protocol::StateReport& own = reports_[static_cast<std::size_t>(rank_)];
  if (PYCCL_MUTANT("own-state-wins") && own.whole && own.revision == election_.revision) {
    election_.content = own.content;
  }
  note_behind();
  const auto has = [this](const auto& each) { return each.content == election_.content; };
  if (std::ranges::all_of(reports_, has)) return conclude();
  std::erase_if(election_.holders, [this](Rank rank) {
    return distrusted_.contains(peers_[static_cast<std::size_t>(rank)]);
  });
  if (election_.holders.empty()) {
    return finish(Status(Code::state_sync,
                         "every member that may send the elected state has sent other bits than "
                         "it had reported: is its memory being written during the sync?"));
  }
  go_to(Phase::table);
}

void StateSync::note_behind() {
  for (const protocol::StateReport& report : reports_) {
    const bool same_bits = report.content == election_.content;
    const bool same_revision = report.revision == election_.revision;
    if (same_bits && same_revision) continue;
    behind_.try_emplace(report.peer, SyncInfo::Behind{report.peer, report.revision, same_revision});
  }
}

void StateSync::take_schemas(const Bytes& gathered) {
  std::vector<ByteView> schemas;
  std::size_t at = 0;
  for (const protocol::StateReport& report : reports_) {
    schemas.emplace_back(gathered.data() + at, report.schema_bytes);
    at += report.schema_bytes;
  }
  std::string text;
  for (std::size_t i = 1; i < schemas.size(); ++i) {
    if (reports_[i].schema == reports_.front().schema) continue;
    text += (text.empty() ? "" : "; ") +
            schema_difference(schemas.front(), "rank 0", schemas[i], "rank " + std::to_string(i));
  }
  finish(Status(Code::state_sync, "the members' states have different schemas: " + text));
}

// ---- table
void StateSync::take_table(const Bytes& bytes) {
  std::vector<Digest> table(state_.block_count());
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = load_digest(bytes.data() + i * digest_bytes);
  }
  trouble_ = Trouble::none;
  if (state_.digest_with(table) == election_.content || PYCCL_MUTANT("any-table-believed")) {
    intake_.expect(election_.revision, election_.content, std::move(table));
  } else {
    PYCCL_MARK("a table with other digests than reported");
    trouble_ = Trouble::table;
  }
  go_to(Phase::standing);
}

// ---- standing
Status StateSync::judge(const std::vector<Trouble>& troubles) {
  for (std::size_t i = 0; i < troubles.size(); ++i) {
    const std::string name = protocol::name_of(reports_, static_cast<Rank>(i));
    if (troubles[i] == Trouble::memory) {
      return {Code::limit_exceeded, name + " has too little memory to receive what it lacks",
              peers_[i]};
    }
    const auto& lacks = standings_[i].lacks;
    const bool holds = std::ranges::find(lacks, true) == lacks.end();
    if (!holds && reports_[i].strategy == Strategy::send_only) {
      return {Code::state_sync,
              name + " is send_only, but its state has changed since it was reported", peers_[i]};
    }
  }
  return {};
}

// True: somebody has not sent what it had reported. It sends no more in this sync, and looks again
// what it has.
bool StateSync::take_complaints(const std::vector<std::vector<bool>>& complaints) {
  bool own = false;
  bool any = false;
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    const auto about = [i](const std::vector<bool>& by) { return by[i]; };
    if (std::ranges::none_of(complaints, about)) continue;
    if (PYCCL_MUTANT("complaints-ignored")) continue;
    any = true;
    own = own || static_cast<Rank>(i) == rank_;
    distrusted_.insert(peers_[i]);
  }
  complaints_.clear();
  if (!any) return false;
  PYCCL_MARK("a member is distrusted");
  after_digest_ = Phase::standing;
  go_to(own ? Phase::digest : Phase::standing);
  return true;
}

void StateSync::plan_pass() {
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
  moves_ = protocol::plan_moves(standings_, state_.block_bytes(), pass_bytes_);
  if (moves_.empty()) {
    return finish(Status(Code::state_sync,
                         "no member that is left and may send has the blocks that are lacking"));
  }
  windows_ = protocol::cut(moves_, state_.block_bytes(), options_.window_bytes);
  pass_bytes_ *= 2;
  next_window_ = arrived_ = 0;
  broken_ = {};
  go_to(Phase::moving);
}

// ---- moving
std::vector<std::size_t> StateSync::samples() const {
  constexpr std::size_t samples_max = 3;
  std::vector<std::size_t> blocks;
  if (phase_ != Phase::moving || next_window_ > 0) return blocks;
  for (const Move& move : moves_) {
    if (move.from == rank_) blocks.push_back(move.block);
  }
  // From all over the pass: tensors differ.
  const std::size_t step = blocks.size() / samples_max + 1;
  std::vector<std::size_t> some;
  for (std::size_t i = step / 2; i < blocks.size(); i += step) some.push_back(blocks[i]);
  return some;
}

Request StateSync::post_window() {
  Posted posted;
  posted.window = next_window_;
  const std::span<const Move> window = windows_[next_window_];
  Request request;
  request.kind = collectives::Kind::all_to_all;
  request.send_shares.resize(peers_.size());
  request.receive_shares.resize(peers_.size());
  Array array{.dtype = kernels::DataType::u8};
  for (const Move& move : sent_by(window, rank_)) {
    const ByteView block = intake_.block(move.block);
    request.input_pieces.push_back(block);
    if (compresses_) request.input_widths.push_back(state_.width(move.block));
    request.send_shares[static_cast<std::size_t>(move.to)] += block.size();
    array.input_count += block.size();
  }
  for (const Move& move : received_by(window, rank_)) {
    const std::uint64_t bytes = state_.block_bytes()[move.block];
    request.receive_shares[static_cast<std::size_t>(move.from)] += bytes;
    array.output_count += bytes;
  }
  posted.received = intake_.window(next_window_, array.output_count);
  array.output = posted.received;
  request.arrays.push_back(array);
  request.packable = true;
  posted_.push_back(std::move(posted));
  ++next_window_;
  request.tag = sync_tag;
  request.on_loss = OnLoss::raise;
  request.world = world();
  return request;
}

void StateSync::window_ended(const Posted& posted, const Status& status) {
  if (status.ok()) {
    take_window(posted);
    if (broken_.ok()) ++arrived_;
  } else if (broken_.ok()) {
    broken_ = status;
  }
  if (!posted_.empty() || may_post_window()) return;
  intake_.settle();
  if (!broken_.ok()) return give_up(broken_);
  go_to(Phase::standing);
}

void StateSync::take_window(const Posted& posted) {
  const std::span<const Move> window = windows_[posted.window];
  for (const Move& move : window) bytes_moved_ += state_.block_bytes()[move.block];
  const std::byte* bytes = posted.received;
  for (const Move& move : received_by(window, rank_)) {
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
