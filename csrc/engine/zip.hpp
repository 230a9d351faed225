// Two lists of pieces of memory, walked side by side.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

#include "base/bytes.hpp"

namespace pyccl::engine {

// Calls visit(from, to, bytes) for each stretch in which both are contiguous. They hold equally
// many bytes.
template <class Visit>
void zip(std::span<const ByteView> from, std::span<const MutableByteView> to, Visit visit) {
  std::size_t used = 0;  // of to.front()
  for (ByteView piece : from) {
    while (!piece.empty()) {
      const std::size_t size = std::min(piece.size(), to.front().size() - used);
      visit(piece.data(), to.front().data() + used, size);
      piece = piece.subspan(size);
      used += size;
      if (used < to.front().size()) continue;
      to = to.subspan(1);
      used = 0;
    }
  }
}

}  // namespace pyccl::engine
