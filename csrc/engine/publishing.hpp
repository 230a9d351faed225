// Committed operations whose results are not all in the caller's arrays yet. They get there a
// bounded amount in each turn, so that nobody waits for a large one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <utility>
#include <vector>

#include "base/ids.hpp"
#include "engine/operation.hpp"

namespace pyccl::engine {

struct Committed {
  OpKey key;
  std::unique_ptr<Operation> operation;
  bool hint = false;
};

class Publishing {
 public:
  void add(Committed committed) { open_.push_back(std::move(committed)); }
  bool empty() const { return open_.empty(); }

  // Writes some results of each; gives those that are complete now, in the order they came.
  std::vector<Committed> advance() {
    constexpr std::uint64_t bytes_at_once = 1 << 20;
    const auto complete = std::stable_partition(open_.begin(), open_.end(), [](Committed& each) {
      return each.operation->publish(bytes_at_once);
    });
    std::vector<Committed> ended(std::make_move_iterator(complete),
                                 std::make_move_iterator(open_.end()));
    open_.erase(complete, open_.end());
    return ended;
  }

 private:
  std::vector<Committed> open_;
};

}  // namespace pyccl::engine
