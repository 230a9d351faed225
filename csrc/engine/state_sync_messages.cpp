// What the members tell each other in a sync, as bytes of operations; see state_sync.hpp.
#include <algorithm>
#include <new>
#include <utility>

#include "base/mark.hpp"
#include "engine/state_sync.hpp"

namespace pyccl::engine {
namespace {

constexpr std::size_t rate_bytes = 4;

std::size_t bits_bytes(std::size_t bits) { return (bits + 7) / 8; }

void store_bits(std::byte* at, const std::vector<bool>& bits) {
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (bits[i]) at[i / 8] |= std::byte{1} << i % 8;
  }
}

std::vector<bool> load_bits(const std::byte* at, std::size_t count) {
  std::vector<bool> bits(count);
  for (std::size_t i = 0; i < count; ++i) {
    bits[i] = (at[i / 8] & std::byte{1} << i % 8) != std::byte{0};
  }
  return bits;
}

}  // namespace

// Everybody's bytes to everybody; `shares` of the ranks, or none if all have as many.
Request StateSync::gather(Bytes input, std::vector<std::uint64_t> shares) {
  Posted& posted = posted_.emplace_back();
  posted.input = std::move(input);
  std::uint64_t all = posted.input.size() * peers_.size();
  if (!shares.empty()) {
    all = 0;
    for (const std::uint64_t share : shares) all += share;
  }
  posted.output.resize(all);
  Request request;
  request.kind = collectives::Kind::all_gather;
  request.shares = std::move(shares);
  request.arrays.push_back(
      {posted.input.data(), posted.output.data(), kernels::DataType::u8, posted.input.size(), all});
  return of_sync(std::move(request));
}

Request StateSync::of_sync(Request request) const {
  request.tag = sync_tag;
  request.on_loss = OnLoss::raise;
  request.world = world();
  request.ends_for_all = true;
  return request;
}

Request StateSync::post_report(const Place& place) {
  peers_ = place.peers;
  rank_ = rank_of(self_);
  protocol::StateReport report;
  report.peer = self_;
  report.strategy = options_.strategy;
  report.whole = state_.whole();
  report.revision = state_.revision();
  if (options_.expect_next) report.expected = state_.next_revision();
  report.schema = state_.schema_digest();
  report.schema_bytes = static_cast<std::uint32_t>(state_.schema().size());
  report.content = state_.digest();
  Bytes bytes(protocol::state_report_bytes);
  store(bytes.data(), report);
  return gather(std::move(bytes), {});
}

Request StateSync::post_schema() {
  std::vector<std::uint64_t> shares;
  for (const protocol::StateReport& report : reports_) shares.push_back(report.schema_bytes);
  const ByteView schema = state_.schema();
  return gather({schema.begin(), schema.end()}, std::move(shares));
}

// From one to all. A gathering in which the others have nothing to give is cut by rank, so in a
// later view than the report's it fails for all alike. A root would be a rank of whichever view its
// caller knows, and those who know the next one already would mean somebody else.
Request StateSync::post_table() {
  const std::uint64_t bytes = state_.block_count() * digest_bytes;
  const Rank sender = election_.holders.front();
  std::vector<std::uint64_t> shares(peers_.size());
  shares[static_cast<std::size_t>(sender)] = bytes;
  Bytes table(sender == rank_ ? bytes : 0);
  for (std::size_t i = 0; i < table.size() / digest_bytes; ++i) {
    store(table.data() + i * digest_bytes, state_.block_digests()[i]);
  }
  return gather(std::move(table), std::move(shares));
}

// trouble 1, complaints by rank (bits), rates to each rank 4 each, lacking blocks (bits)
std::size_t StateSync::standing_bytes() const {
  return 1 + bits_bytes(peers_.size()) + rate_bytes * peers_.size() +
         bits_bytes(state_.block_count());
}

Request StateSync::post_standing(const Place& place) {
  // While moving, the memory of what was lacking at the begin is there.
  if (trouble_ != Trouble::table && phase_ != Phase::moving) {
    intake_.settle();
    try {
      intake_.reserve();
    } catch (const std::bad_alloc&) {
      PYCCL_MARK("no memory for what is lacking");
      trouble_ = Trouble::memory;
    }
  }
  Bytes bytes(standing_bytes());
  bytes[0] = static_cast<std::byte>(trouble_);
  std::byte* at = bytes.data() + 1;
  std::vector<bool> complaints(peers_.size());
  for (std::size_t i = 0; i < peers_.size(); ++i) complaints[i] = complaints_.contains(peers_[i]);
  store_bits(at, complaints);
  at += bits_bytes(peers_.size());
  for (std::size_t i = 0; i < peers_.size(); ++i, at += rate_bytes) {
    // Of a later view nothing that fits: the operation will fail.
    const bool known = place.peers == peers_ && i < place.mb_per_s.size();
    store_little(at, known ? place.mb_per_s[i] : std::uint32_t{0});
  }
  if (trouble_ != Trouble::table) store_bits(at, intake_.lacks());
  return gather(std::move(bytes), {});
}

// Whoever sent it has changed since it reported: it looks again, and all begin anew.
bool StateSync::table_refused(const Bytes& gathered) {
  bool refused = false;
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    refused = refused || static_cast<Trouble>(gathered[i * standing_bytes()]) == Trouble::table;
  }
  if (!refused) return false;
  const Rank sender = election_.holders.front();
  distrusted_.insert(peers_[static_cast<std::size_t>(sender)]);
  after_digest_ = Phase::report;
  go_to(sender == rank_ ? Phase::digest : Phase::report);
  return true;
}

Status StateSync::take_standings(const Bytes& gathered) {
  std::vector<Trouble> troubles;
  std::vector<std::vector<bool>> complaints;
  standings_.clear();
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    const std::byte* at = gathered.data() + i * standing_bytes();
    troubles.push_back(static_cast<Trouble>(at[0]));
    at += 1;
    complaints.push_back(load_bits(at, peers_.size()));
    at += bits_bytes(peers_.size());
    protocol::Standing standing;
    for (std::size_t to = 0; to < peers_.size(); ++to, at += rate_bytes) {
      const bool used = static_cast<Rank>(i) == rank_ || !PYCCL_MUTANT("own-rates-only");
      standing.mb_per_s.push_back(used ? load_little<std::uint32_t>(at) : 0);
    }
    standing.lacks = load_bits(at, state_.block_count());
    standing.sends = reports_[i].strategy != protocol::Strategy::receive_only;
    standings_.push_back(std::move(standing));
  }
  if (Status status = judge(troubles); !status.ok()) return status;
  take_complaints(complaints);
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    if (distrusted_.contains(peers_[i])) standings_[i].sends = false;
  }
  return {};
}

}  // namespace pyccl::engine
