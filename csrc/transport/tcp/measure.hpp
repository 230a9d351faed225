// What the kernel knows of the way that a connection takes. In a file of its own, since the header
// of the kernel that has it does not go together with that of the C library.
#pragma once

#include <optional>

#include "transport/network.hpp"

namespace pyccl::transport::tcp {

// Nothing from kernels that don't measure rates (before Linux 4.9).
std::optional<WayMeasurement> measurement_of(int fd);

}  // namespace pyccl::transport::tcp
