// See ranks.hpp.
#include "ranks.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>

namespace pyccl::engine {

Ranks::Ranks(std::vector<Request> requests, std::uint32_t segment_bytes, std::uint64_t seed,
             collectives::Reach reach)
    : prng_(seed), reach_(reach), works_(requests.size()) {
  for (std::size_t rank = 0; rank < requests.size(); ++rank) {
    peers_.push_back({static_cast<std::uint64_t>(100 + rank)});
    pools_.push_back(std::make_unique<Pools>(segment_bytes));
  }
  for (std::size_t rank = 0; rank < requests.size(); ++rank) {
    const Status checked = check(requests[rank]);
    CAPTURE(checked.reason());
    REQUIRE(checked.ok());
    const Rank root = requests[rank].root;
    operations_.push_back(std::make_unique<Operation>(
        1, requests[rank], root < 0 ? PeerId{} : peers_[static_cast<std::size_t>(root)],
        root == static_cast<Rank>(rank), segment_bytes, Time{}, *pools_[rank]));
  }
}

void Ranks::begin(std::uint32_t attempt) {
  wire_.clear();
  posts_.clear();
  const OpId id{{1, attempt}, {}};
  for (std::size_t rank = 0; rank < peers_.size(); ++rank) {
    const Status begun = operations_[rank]->begin({id, attempt, peers_[rank], peers_, {}, reach_});
    CAPTURE(begun.reason());
    REQUIRE(begun.ok());
    works_[rank] = true;
  }
  // Some learn late that the others have posted.
  for (std::size_t to = 0; to < peers_.size(); ++to) {
    for (std::size_t from = 0; from < peers_.size(); ++from) posts_.emplace_back(from, to);
  }
}

bool Ranks::run(std::size_t most) {
  for (std::size_t event = 0; event < most; ++event) {
    if (!posts_.empty() && prng_.chance(1, 3)) {
      const std::size_t at = prng_.below(posts_.size());
      const auto [from, to] = posts_[at];
      operations_[to]->posted(peers_[from], operations_[from]->weight());
      posts_.erase(posts_.begin() + static_cast<std::ptrdiff_t>(at));
    } else if (!wire_.empty() && prng_.chance(1, 2)) {
      deliver();
    } else if (!send_one() && !work() && wire_.empty() && posts_.empty()) {
      return true;
    }
  }
  return false;
}

std::size_t Ranks::slots_out() const {
  std::size_t slots = 0;
  for (const auto& pools : pools_) slots += pools->slots.slots_out();
  return slots;
}

bool Ranks::work() {
  const auto at = std::ranges::find(works_, true);
  if (at == works_.end()) return false;
  *at = operations_[static_cast<std::size_t>(at - works_.begin())]->work(1);
  return true;
}

bool Ranks::send_one() {
  const std::size_t first = prng_.below(peers_.size());
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    const std::size_t from = (first + i) % peers_.size();
    for (std::size_t to = 0; to < peers_.size(); ++to) {
      Envelope envelope{from, to, {}, {}};
      transport::Pieces pieces;
      if (!operations_[from]->next_segment(peers_[to], envelope.header, pieces)) continue;
      for (const ByteView piece : pieces.view()) {
        envelope.payload.insert(envelope.payload.end(), piece.begin(), piece.end());
      }
      if (prng_.chance(1, 8)) wire_.push_back(envelope);
      wire_.push_back(std::move(envelope));
      return true;
    }
  }
  return false;
}

void Ranks::deliver() {
  const std::size_t at = prng_.below(wire_.size());
  const Envelope envelope = std::move(wire_[at]);
  wire_.erase(wire_.begin() + static_cast<std::ptrdiff_t>(at));
  Operation& operation = *operations_[envelope.to];
  transport::MutablePieces target;
  const transport::ReadToken token = ++token_;
  operation.segment(peers_[envelope.from], envelope.header, token, target);
  if (target.empty()) return;
  const bool complete = !prng_.chance(1, 10);
  std::size_t done = 0;
  for (const MutableByteView piece : target.view()) {
    const std::size_t size = complete ? piece.size() : piece.size() / 2;
    std::memcpy(piece.data(), envelope.payload.data() + done, size);
    done += piece.size();
  }
  REQUIRE(operation.segment_end(peers_[envelope.from], envelope.header, token, complete).ok());
  if (!complete) wire_.push_back(envelope);  // its connection died; it comes again
}

}  // namespace pyccl::engine
