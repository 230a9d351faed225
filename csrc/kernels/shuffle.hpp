// The bytes of numbers in another order: first the first byte of each, then the second of each, and
// so on. Signs and exponents of neighbours are alike, and compress once they stand together.
#pragma once

#include "base/bytes.hpp"

namespace pyccl::kernels {

inline constexpr unsigned shuffle_width_max = 16;

// `to` has the size of `from`; `width`, 1 to shuffle_width_max, are the bytes of a number. What is
// left over behind the last whole number stays where it is.
void shuffle(ByteView from, unsigned width, MutableByteView to);
void unshuffle(ByteView from, unsigned width, MutableByteView to);

}  // namespace pyccl::kernels
