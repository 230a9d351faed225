// The programs of the calls that come again and again: a training loop makes the same few calls for
// days, and choosing, planning and compiling cost more than a small operation.
#pragma once

#include <cstdint>
#include <list>
#include <memory>

#include "collectives/select.hpp"
#include "engine/program.hpp"

namespace pyccl::engine {

// All that a program depends on.
struct ProgramKey {
  collectives::Kind kind = collectives::Kind::all_reduce;
  collectives::Algorithm forced = collectives::Algorithm::automatic;
  Rank self = 0;
  collectives::Shape shape;
  collectives::Links links;
  collectives::Reach reach = collectives::Reach::same_host;
  std::uint64_t segment_elements = 1;
  bool operator==(const ProgramKey&) const = default;
};

struct ChosenProgram {
  collectives::Algorithm algorithm = collectives::Algorithm::automatic;
  std::shared_ptr<const Program> program;
};

class ProgramCache {
 public:
  ChosenProgram get(ProgramKey key);
  void trim() { entries_.clear(); }

 private:
  struct Entry {
    ProgramKey key;
    ChosenProgram chosen;
  };
  std::list<Entry> entries_;  // the last used one first
};

}  // namespace pyccl::engine
