// A short list, looked through from the one that was used last.
#include "engine/program_cache.hpp"

#include <algorithm>
#include <utility>

namespace pyccl::engine {
namespace {

constexpr std::size_t entries_max = 32;
// What is large is worth compiling anew: its program takes memory, and its data takes longer.
constexpr std::size_t transfers_max = 256;

}  // namespace

ChosenProgram ProgramCache::get(ProgramKey key) {
  const auto found = std::ranges::find(entries_, key, &Entry::key);
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return found->chosen;
  }
  ChosenProgram chosen;
  chosen.algorithm = collectives::choose(key.kind, key.shape, key.forced, key.links);
  const collectives::Plan plan =
      collectives::make_plan(key.kind, chosen.algorithm, key.self, key.shape, key.links, key.reach);
  chosen.program =
      std::make_shared<const Program>(plan, key.self, key.shape.world, key.segment_elements);
  const Program& program = *chosen.program;
  if (program.incoming.size() + program.outgoing.size() > transfers_max) return chosen;
  if (entries_.size() == entries_max) entries_.pop_back();
  entries_.push_front({std::move(key), chosen});
  return chosen;
}

}  // namespace pyccl::engine
