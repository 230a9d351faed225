// A counter that every fork advances in the child.
#include "base/fork.hpp"

#include <pthread.h>

#include <atomic>

namespace pyccl {
namespace {

std::atomic<std::uint32_t> generation = 0;

void advance() { generation.fetch_add(1, std::memory_order_relaxed); }

}  // namespace

std::uint32_t fork_generation() {
  [[maybe_unused]] static const int registered = ::pthread_atfork(nullptr, nullptr, advance);
  return generation.load(std::memory_order_relaxed);
}

}  // namespace pyccl
