// See block_moves.hpp.
#include "protocol/block_moves.hpp"

#include <algorithm>
#include <map>

#include "base/mark.hpp"

namespace pyccl::protocol {
namespace {

class Pass {
 public:
  Pass(std::span<const Standing> standings, std::span<const std::uint32_t> block_bytes,
       std::uint64_t bytes_max)
      : standings_(standings),
        block_bytes_(block_bytes),
        bytes_max_(bytes_max),
        received_(standings.size()),
        busy_(standings.size()) {
    std::uint64_t sum = 0;
    std::uint64_t count = 0;
    for (const Standing& each : standings) {
      for (const std::uint32_t rate : each.mb_per_s) {
        sum += rate;
        count += rate > 0 ? 1 : 0;
      }
    }
    // A way that nobody has measured is taken to be like those that have been.
    usual_rate_ = count > 0 ? std::max<std::uint64_t>(sum / count, 1) : 1;
    for (const Standing& each : standings) {
      for (const std::uint32_t rate : each.mb_per_s) fastest_ = std::max(fastest_, rate);
    }
  }

  std::vector<Move> plan() {
    for (std::uint32_t block = 0; block < block_bytes_.size(); ++block) add(block);
    return std::move(moves_);
  }

 private:
  void add(std::uint32_t block) {
    sources_.clear();
    receivers_.clear();
    for (std::size_t rank = 0; rank < standings_.size(); ++rank) {
      const Standing& standing = standings_[rank];
      const bool lacks = standing.lacks[block];
      const bool expects = !standing.expects.empty() && standing.expects[block];
      const bool sends = standing.sends || PYCCL_MUTANT("anybody-sends");
      if (!lacks && sends) sources_.push_back(rank);
      if (lacks && !expects && received_[rank] < bytes_max_) receivers_.push_back(rank);
    }
    if (receivers_.empty() || sources_.empty()) return;
    // Another one first at each block, so that what few send is spread over all who lack it.
    std::ranges::rotate(receivers_, receivers_.begin() + block % std::ssize(receivers_));
    if (receivers_.size() > sources_.size()) PYCCL_MARK("more lack a block than have it");
    for (const std::size_t to : receivers_) {
      if (sources_.empty()) break;
      const auto from = quickest(to, block_bytes_[block]);
      busy_[*from] += time_of(*from, to, block_bytes_[block]);
      received_[to] += block_bytes_[block];
      moves_.push_back({block, static_cast<Rank>(*from), static_cast<Rank>(to)});
      sources_.erase(from);
    }
  }

  // In units of which only the proportion matters.
  std::uint64_t time_of(std::size_t from, std::size_t to, std::uint64_t bytes) const {
    const auto& rates = standings_[from].mb_per_s;
    std::uint64_t rate = to < rates.size() && rates[to] > 0 ? rates[to] : usual_rate_;
    // A way that is asked for less looks slower, and would be asked for even less.
    if (rate * alike_of >= fastest_ * alike) rate = std::max<std::uint64_t>(fastest_, rate);
    return bytes * 1024 / rate;
  }

  // Whose sending would end first; of equals the lowest rank.
  std::vector<std::size_t>::iterator quickest(std::size_t to, std::uint64_t bytes) {
    return std::ranges::min_element(
        sources_, {}, [&](std::size_t from) { return busy_[from] + time_of(from, to, bytes); });
  }

  // What carries three fifths of what the fastest way does is taken to be like it.
  static constexpr std::uint64_t alike = 3;
  static constexpr std::uint64_t alike_of = 5;

  std::span<const Standing> standings_;
  std::span<const std::uint32_t> block_bytes_;
  std::uint64_t bytes_max_;
  std::uint32_t fastest_ = 0;
  std::uint64_t usual_rate_ = 1;
  std::vector<std::uint64_t> received_;  // by rank
  std::vector<std::uint64_t> busy_;      // with sending, by rank
  std::vector<std::size_t> sources_;     // of the block at hand
  std::vector<std::size_t> receivers_;
  std::vector<Move> moves_;
};

}  // namespace

std::vector<Move> plan_moves(std::span<const Standing> standings,
                             std::span<const std::uint32_t> block_bytes, std::uint64_t bytes_max) {
  return Pass(standings, block_bytes, bytes_max).plan();
}

std::vector<std::span<const Move>> cut(std::span<const Move> moves,
                                       std::span<const std::uint32_t> block_bytes,
                                       std::uint64_t bytes_max) {
  std::vector<std::span<const Move>> pieces;
  std::map<Rank, std::uint64_t> received;
  std::map<Rank, std::uint64_t> sent;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < moves.size(); ++i) {
    const std::uint64_t bytes = block_bytes[moves[i].block];
    const auto overflows = [&](std::uint64_t& sum) { return sum > 0 && sum + bytes > bytes_max; };
    if (overflows(received[moves[i].to]) || overflows(sent[moves[i].from])) {
      pieces.push_back(moves.subspan(begin, i - begin));
      begin = i;
      received.clear();
      sent.clear();
    }
    received[moves[i].to] += bytes;
    sent[moves[i].from] += bytes;
  }
  if (begin < moves.size()) pieces.push_back(moves.subspan(begin));
  return pieces;
}

}  // namespace pyccl::protocol
