// See digest.hpp.
#include "base/digest.hpp"

#include <cinttypes>
#include <cstdio>

namespace pyccl {

std::string to_string(const Digest& digest) {
  char text[33];
  std::snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, digest.high, digest.low);
  return text;
}

}  // namespace pyccl
