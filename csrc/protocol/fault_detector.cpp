// The rules of the header, one branch each.
#include "protocol/fault_detector.hpp"

namespace pyccl::protocol {
namespace {

std::string seconds(Duration duration) {
  const auto tenths = duration / std::chrono::milliseconds(100);
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}

}  // namespace

void FaultDetector::connected(Time now) {
  connected_ = true;
  refused_ = false;
  since_ = now;
}

void FaultDetector::heard(Time now) {
  if (connected_) since_ = now;
}

void FaultDetector::disconnected(Time now) {
  if (!connected_) return;
  connected_ = false;
  since_ = now;
}

void FaultDetector::probed(ProbeResult result) {
  if (result == ProbeResult::refused) refused_ = true;
}

void FaultDetector::forgive(Duration slept) { since_ = since_ + slept; }

std::optional<std::string> FaultDetector::death(Time now, const Timing& timing) const {
  if (refused_) return "connection refused";
  if (now < next_deadline(timing)) return std::nullopt;
  if (connected_) return "silent for " + seconds(timing.heartbeat_limit);
  return "its connection broke and it did not come back within " + seconds(timing.reconnect_grace);
}

Time FaultDetector::next_deadline(const Timing& timing) const {
  return since_ + (connected_ ? timing.heartbeat_limit : timing.reconnect_grace);
}

}  // namespace pyccl::protocol
