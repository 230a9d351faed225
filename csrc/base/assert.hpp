// Broken invariants end the process, in release builds too: a peer that goes on after one may hand
// wrong bits to everybody else. What the network or a user can cause is never an assertion; that is
// a Status.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace pyccl {

[[noreturn]] inline void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "pyccl: assertion failed: %s at %s:%d\n", expression, file, line);
  std::fflush(stderr);
  std::abort();
}

}  // namespace pyccl

#define PYCCL_ASSERT(expression)                        \
  (static_cast<bool>(expression) ? static_cast<void>(0) \
                                 : ::pyccl::assertion_failed(#expression, __FILE__, __LINE__))
