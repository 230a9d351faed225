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
using protocol::Strategy;

StateSync::StateSync(SharedState& state, const SyncOptions& options, PeerId self)
    : state_(state),
      options_(options),
      self_(self),
      intake_(state, {options.window_bytes, options.windows_ahead, options.staged_bytes_max}) {
  PYCCL_ASSERT(options.windows_ahead > 0 && options.window_bytes > 0 && options.pass_bytes > 0);
}

StateSync::Need StateSync::need() const {
  switch (phase_) {
    case Phase::over: return Need::over;
    case Phase::digest: return Need::digest;
    case Phase::moving: return may_post_move() ? Need::post : Need::wait;
    default: return posted_.empty() ? Need::post : Need::wait;
  }
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
    default: return post_move(place);
  }
}

void StateSync::ended(const Status& status, const OperationInfo& info) {
  PYCCL_ASSERT(!posted_.empty());
  const Posted posted = std::move(posted_.front());
  posted_.pop_front();
  info_.bytes_sent += info.bytes_sent;
  info_.bytes_received += info.bytes_received;
  info_.peers_pending = info.peers_pending;
  if (phase_ == Phase::moving) return move_ended(posted, status);
  if (!status.ok()) return give_up(status);
  switch (phase_) {
    case Phase::report: return take_reports(posted.output);
    case Phase::schema: return take_schemas(posted.output);
    case Phase::table: return take_table(posted.output);
    default: break;
  }
  if (table_refused(posted.output)) return;
  if (const Status fault = take_standings(posted.output); !fault.ok()) return finish(fault);
  if (!look_again()) begin_moving();
}

// Where a member is lost the others begin again; whatever else has failed an operation has failed
// it for all.
void StateSync::give_up(const Status& status) {
  if (status.code() == Code::state_sync) {
    // See Request::ends_for_all.
    const Rank rank = rank_of(status.peer());
    return finish(Status(Code::cancelled,
                         "the sync was given up by " +
                             (rank < 0 ? "" : "rank " + std::to_string(rank) + ", ") + "peer " +
                             to_string(status.peer()),
                         status.peer()));
  }
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
  if (std::ranges::any_of(reports_, differs)) return compare_schemas();
  const auto elected = protocol::elect(reports_);
  if (!elected.ok()) return finish(elected.status());
  const bool another = elected.value().content != election_.content ||
                       elected.value().revision != election_.revision;
  if (another) behind_.clear();  // who was behind one that is not elected any more
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

// Nobody is made to allocate more than that by what others report.
void StateSync::compare_schemas() {
  constexpr std::uint64_t compared_bytes_max = 64 << 20;
  std::uint64_t bytes = 0;
  for (const protocol::StateReport& report : reports_) bytes += report.schema_bytes;
  if (bytes <= compared_bytes_max) return go_to(Phase::schema);
  finish(Status(Code::state_sync,
                "the members' states have different schemas, too large to tell how they differ"));
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

// Who has not sent what it had reported sends no more in this sync.
void StateSync::take_complaints(const std::vector<std::vector<bool>>& complaints) {
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    // What has come since this was said is for the next time.
    if (complaints[static_cast<std::size_t>(rank_)][i]) complaints_.erase(peers_[i]);
    const auto about = [i](const std::vector<bool>& by) { return by[i]; };
    if (std::ranges::none_of(complaints, about) || PYCCL_MUTANT("complaints-ignored")) continue;
    PYCCL_MARK("a member is distrusted");
    distrusted_.insert(peers_[i]);
    suspects_.insert(peers_[i]);
  }
}

// True: somebody is distrusted. It looks again what it has, and then all say anew what they lack.
bool StateSync::look_again() {
  if (suspects_.empty()) return false;
  after_digest_ = Phase::standing;
  go_to(suspects_.contains(self_) ? Phase::digest : Phase::standing);
  suspects_.clear();
  return true;
}

}  // namespace pyccl::engine
