// All ranks of one operation against each other, without channels: segments are handed over in
// random order, some of them twice or broken off, and members learn late that others have posted.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "base/prng.hpp"
#include "engine/operation.hpp"

namespace pyccl::engine {

class Ranks {
 public:
  // requests[r] is what rank r calls.
  Ranks(std::vector<Request> requests, std::uint32_t segment_bytes, std::uint64_t seed,
        collectives::Reach reach = collectives::Reach::same_host);

  // Begins an attempt at all ranks, whatever has become of the one before.
  void begin(std::uint32_t attempt);
  // Hands over what can be handed over; stops after `most` events. True: everything has arrived.
  bool run(std::size_t most);

  Operation& operation(Rank rank) { return *operations_[static_cast<std::size_t>(rank)]; }
  PeerId peer(Rank rank) const { return peers_[static_cast<std::size_t>(rank)]; }
  Rank world() const { return static_cast<Rank>(peers_.size()); }
  // Slots of staging memory that are in use at all ranks.
  std::size_t slots_out() const;

 private:
  struct Envelope {
    std::size_t from, to;
    transport::SegmentHeader header;
    Bytes payload;
  };

  bool send_one();
  void deliver();
  bool work();

  Prng prng_;
  collectives::Reach reach_;
  std::vector<PeerId> peers_;
  std::vector<std::unique_ptr<Pools>> pools_;
  std::vector<std::unique_ptr<Operation>> operations_;
  std::vector<Envelope> wire_;
  std::vector<std::pair<std::size_t, std::size_t>> posts_;
  std::vector<bool> works_;
  transport::ReadToken token_ = 0;
};

}  // namespace pyccl::engine
