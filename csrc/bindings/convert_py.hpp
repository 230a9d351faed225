// Small conversions that several classes of the module need: durations, epochs, and a Status as the
// exception that pyccl/errors.py makes of it.
#pragma once

#include <pybind11/pybind11.h>

#include <string_view>
#include <vector>

#include "base/ids.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "protocol/limits.hpp"

namespace pyccl::bindings {

// Seconds as Python gives them; what is too long to count is as good as endless.
Duration to_duration(double seconds);

// A Timing in which the named limits (seconds) replace the defaults.
protocol::Timing to_timing(const pybind11::dict& limits);

// Text of the core, into which others may have written: what is no UTF-8 comes as \xNN.
pybind11::str to_str(std::string_view text);

// (code, reason, peer or None), the arguments of pyccl.errors.from_status().
pybind11::tuple to_tuple(const Status& status);
pybind11::tuple to_tuple(Epoch epoch);
pybind11::tuple to_tuple(const std::vector<PeerId>& peers);  // as texts

[[noreturn]] void throw_status(const Status& status);

}  // namespace pyccl::bindings
