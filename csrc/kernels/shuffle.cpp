// See shuffle.hpp.
#include "kernels/shuffle.hpp"

#include <cstring>

#include "base/assert.hpp"

namespace pyccl::kernels {
namespace {

// Inlined where the width is a constant, so that the compiler makes vector code of it.
[[gnu::always_inline]] inline void spread(const std::byte* from, unsigned width, std::size_t count,
                                          std::byte* to) {
  for (std::size_t i = 0; i < count; ++i) {
    for (unsigned plane = 0; plane < width; ++plane) {
      to[plane * count + i] = from[i * width + plane];
    }
  }
}

[[gnu::always_inline]] inline void gather(const std::byte* from, unsigned width, std::size_t count,
                                          std::byte* to) {
  for (std::size_t i = 0; i < count; ++i) {
    for (unsigned plane = 0; plane < width; ++plane) {
      to[i * width + plane] = from[plane * count + i];
    }
  }
}

void copy_rest(ByteView from, std::size_t begin, MutableByteView to) {
  if (begin < from.size()) std::memcpy(to.data() + begin, from.data() + begin, from.size() - begin);
}

}  // namespace

void shuffle(ByteView from, unsigned width, MutableByteView to) {
  PYCCL_ASSERT(width >= 1 && width <= shuffle_width_max && to.size() == from.size());
  const std::size_t count = from.size() / width;
  switch (width) {
    case 1: return copy_rest(from, 0, to);
    case 2: spread(from.data(), 2, count, to.data()); break;
    case 4: spread(from.data(), 4, count, to.data()); break;
    case 8: spread(from.data(), 8, count, to.data()); break;
    default: spread(from.data(), width, count, to.data()); break;
  }
  copy_rest(from, count * width, to);
}

void unshuffle(ByteView from, unsigned width, MutableByteView to) {
  PYCCL_ASSERT(width >= 1 && width <= shuffle_width_max && to.size() == from.size());
  const std::size_t count = from.size() / width;
  switch (width) {
    case 1: return copy_rest(from, 0, to);
    case 2: gather(from.data(), 2, count, to.data()); break;
    case 4: gather(from.data(), 4, count, to.data()); break;
    case 8: gather(from.data(), 8, count, to.data()); break;
    default: gather(from.data(), width, count, to.data()); break;
  }
  copy_rest(from, count * width, to);
}

}  // namespace pyccl::kernels
