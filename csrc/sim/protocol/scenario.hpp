// Scenarios: text scripts that drive the protocol world step by step (tests/scenarios).
#pragma once

#include <deque>
#include <string>

#include "sim/trace.hpp"

namespace pyccl::sim {

struct ScenarioResult {
  std::string failure;  // empty: all went as expected
  std::deque<std::string> lines;
};

ScenarioResult run_scenario(const std::string& path, Trace::Text text);

}  // namespace pyccl::sim
