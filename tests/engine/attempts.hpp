// What must hold of any operation, however its attempts end. A Group gives requests() to all ranks
// and knows what their memory must hold: expect_results(), expect_inputs().
#pragma once

#include <doctest/doctest.h>

#include "ranks.hpp"

namespace pyccl::engine {

template <class Group>
void finish(const Group& group, Ranks& ranks) {
  for (Rank rank = 0; rank < ranks.world(); ++rank) {
    REQUIRE(ranks.operation(rank).became_whole());
    CHECK_FALSE(ranks.operation(rank).became_whole());
    ranks.operation(rank).commit();
    while (ranks.operation(rank).publish(8 * 1024)) {
    }
  }
  group.expect_results();
  CHECK(ranks.slots_out() == 0);
}

// Broken off after so many events.
template <class Group>
void break_off(Group&& group, std::uint32_t segment_bytes, std::uint64_t seed, std::size_t events) {
  Ranks broken(group.requests(), segment_bytes, seed);
  broken.begin(1);
  broken.run(events);
  for (Rank rank = 0; rank < broken.world(); ++rank) broken.operation(rank).roll_back();
  group.expect_inputs();
  CHECK(broken.slots_out() == 0);
}

// The third attempt succeeds.
template <class Group>
void retry(Group&& group, std::uint32_t segment_bytes, std::uint64_t seed, std::size_t events) {
  Ranks retried(group.requests(), segment_bytes, seed);
  for (std::uint32_t attempt = 1; attempt < 3; ++attempt) {
    retried.begin(attempt);
    retried.run(events);
  }
  retried.begin(3);
  REQUIRE(retried.run(10'000'000));
  finish(group, retried);
}

}  // namespace pyccl::engine
