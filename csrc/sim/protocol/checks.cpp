// Hands each report on to every family.
#include "sim/protocol/checks.hpp"

namespace pyccl::sim {

Checks::Checks(World& world) : Check(world) {
  families_.push_back(check_views(world));
  families_.push_back(check_outcomes(world));
  families_.push_back(check_newcomers(world));
  families_.push_back(check_eviction(world));
  families_.push_back(check_lines(world));
  families_.push_back(check_calls(world));
  families_.push_back(check_boundaries(world));
  families_.push_back(check_bounds(world));
  families_.push_back(check_subgroups(world));
}

void Checks::persisted(const protocol::CoordinatorState& state) { tell(&Check::persisted, state); }
void Checks::coordinator_sends(const CoordinatorNode& node, PeerId to,
                               const protocol::Message& message) {
  tell(&Check::coordinator_sends, node, to, message);
}
void Checks::heard_coordinator(const PeerNode& peer, std::uint64_t line,
                               const protocol::Message& message) {
  tell(&Check::heard_coordinator, peer, line, message);
}
void Checks::installed(const PeerNode& peer, const protocol::View& view) {
  tell(&Check::installed, peer, view);
}
void Checks::posted(const PeerNode& peer, OpKey op, const protocol::Call& call) {
  tell(&Check::posted, peer, op, call);
}
void Checks::refused(const PeerNode& peer, const protocol::Call& call, const Status& status) {
  tell(&Check::refused, peer, call, status);
}
void Checks::started(const PeerNode& peer, OpId op, std::uint32_t attempt) {
  tell(&Check::started, peer, op, attempt);
}
void Checks::committed(const PeerNode& peer, OpId op, bool hint) {
  tell(&Check::committed, peer, op, hint);
}
void Checks::failed(const PeerNode& peer, OpKey op, const Status& status) {
  tell(&Check::failed, peer, op, status);
}
void Checks::withdrawn(const PeerNode& peer, OpKey op) { tell(&Check::withdrawn, peer, op); }
void Checks::update_called(const PeerNode& peer, Time deadline) {
  tell(&Check::update_called, peer, deadline);
}
void Checks::update_finished(const PeerNode& peer, const Status& status) {
  tell(&Check::update_finished, peer, status);
}
void Checks::leave_called(const PeerNode& peer, Time deadline) {
  tell(&Check::leave_called, peer, deadline);
}
void Checks::left(const PeerNode& peer) { tell(&Check::left, peer); }
void Checks::ended(const PeerNode& peer, const Status& status) {
  tell(&Check::ended, peer, status);
}
void Checks::died(const PeerNode& peer) { tell(&Check::died, peer); }
void Checks::settled(const PeerNode& peer) { tell(&Check::settled, peer); }
void Checks::time_passed() { tell(&Check::time_passed); }
void Checks::finished() { tell(&Check::finished); }

}  // namespace pyccl::sim
