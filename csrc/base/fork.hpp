// Tells a process from the one that it was forked from, without a system call each time.
#pragma once

#include <cstdint>

namespace pyccl {

// Differs between a process and its forked children. To be called once before a fork to be told of
// it.
std::uint32_t fork_generation();

}  // namespace pyccl
