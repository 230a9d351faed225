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
#include "base/mark.hpp"
#include "engine/operation.hpp"

namespace pyccl::engine {

struct Committed {
  OpKey key;
  std::unique_ptr<Operation> operation;
  bool hint = false;
};

class Publishing {
 public:
  // `bytes` of each in a turn.
  explicit Publishing(std::uint64_t bytes) : bytes_(bytes) {}

  void add(Committed committed) { open_.push_back(std::move(committed)); }
  bool empty() const { return open_.empty(); }

  // A turn's worth of each; gives those that are complete now, in the order they came.
  std::vector<Committed> advance() {
    std::vector<Committed> ended;
    ended.reserve(open_.size());  // what is complete must not be lost for want of memory
    const auto complete =
        std::stable_partition(open_.begin(), open_.end(),
                              [this](Committed& each) { return write_some(*each.operation); });
    ended.assign(std::make_move_iterator(complete), std::make_move_iterator(open_.end()));
    open_.erase(complete, open_.end());
    return ended;
  }
  // A turn's worth of one operation. True: there is more, and it is to be added.
  bool write_some(Operation& operation) const {
    if (!operation.publish(bytes_)) return false;
    PYCCL_MARK("a result is written over several turns");
    return true;
  }

 private:
  const std::uint64_t bytes_;
  std::vector<Committed> open_;
};

}  // namespace pyccl::engine
