// A plan made ready to run: its transfers, folds and copies in flat lists, their segments numbered,
// and who waits for what. It does not change while it runs and belongs to no operation.
#pragma once

#include <cstdint>
#include <vector>

#include "collectives/plan.hpp"

namespace pyccl::engine {

// One transfer that arrives: (from, step).
struct Incoming {
  Rank from = 0;
  std::uint16_t step = 0;
  collectives::Range range;  // of the result, or of what the fold makes
  int fold = -1;             // index of it, or -1: a receive
  std::uint32_t place = 0;   // among the fold's sources
  std::uint32_t segments = 0;
  std::uint32_t first_segment = 0;  // its number among all incoming segments
  bool credit() const { return fold < 0 && range.size() == 0; }
};

struct FoldPlan {
  std::uint16_t step = 0;
  collectives::Fold fold;
  std::uint32_t segments = 0;
  std::uint32_t first_segment = 0;       // its number among the segments of all folds
  std::uint32_t first_staged = 0;        // places for what arrives: sources times segments
  std::uint32_t others = 0;              // sources but the own
  bool own_partial = false;              // a source is what was made here
  std::vector<std::uint32_t> own_folds;  // by these
};

struct Outgoing {
  std::uint16_t step = 0;
  collectives::Send send;
  std::uint32_t segments = 0;
  std::vector<std::uint32_t> folds;  // of partial sums: those that make them
};

// Reads partial sums or results that earlier steps make: a send, or a fold for its own part.
struct Reader {
  bool fold = false;
  std::uint32_t index = 0;  // of outgoing or folds
  collectives::Range range;
  // One maker makes exactly this range, so segment k of it is all that segment k here waits for.
  bool exact = false;
  std::uint32_t first_count = 0;  // else: where its counts of missing segments begin
};

// Sends of input that wait for a step's receive from a rank.
struct HeldBack {
  std::uint16_t step = 0;
  Rank from = 0;
  std::uint32_t outgoing = 0;
};

struct Program {
  Program(const collectives::Plan& plan, Rank self, Rank world, std::uint64_t segment_elements);

  const Incoming* find_incoming(Rank from, std::uint16_t step) const;
  std::uint32_t segments_of(collectives::Range range) const;
  collectives::Range segment_range(collectives::Range range, std::uint32_t segment) const;

  Rank self = 0;
  std::uint64_t segment_elements = 1;
  std::uint64_t partial_count = 0;  // elements
  bool partial_in_result = false;
  bool overwrites_unsent = false;

  std::vector<Incoming> incoming;  // by (step, from)
  std::vector<FoldPlan> folds;
  std::vector<Outgoing> outgoing;
  std::vector<collectives::Copy> copies;
  std::vector<Reader> readers;
  // By fold, incoming receive and copy: readers of what it makes.
  std::vector<std::vector<std::uint32_t>> readers_of_fold;
  std::vector<std::vector<std::uint32_t>> readers_of_incoming;
  std::vector<std::vector<std::uint32_t>> readers_of_copy;
  std::vector<std::vector<std::uint32_t>> inputs;   // by rank: sends of input in the plan's order
  std::vector<HeldBack> held_back;                  // by (step, from)
  std::vector<std::vector<std::uint32_t>> credits;  // by step: sends that wait for its folds
  std::vector<std::uint32_t> fold_segments_of;      // by step

  // How the counters of a run begin, and how many there are.
  std::vector<std::uint16_t> missing;  // of readers that are not exact
  std::uint32_t incoming_segments = 0;
  std::uint32_t fold_segments = 0;
  std::uint32_t staged_places = 0;
  std::uint64_t results = 0;  // segments of results that folds and receives make
};

}  // namespace pyccl::engine
