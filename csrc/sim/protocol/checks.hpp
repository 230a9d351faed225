// What must hold, whatever happens. Each family of invariants is a Check in a file of its own
// (check_*.cpp); nodes report to all of them.
#pragma once

#include <memory>
#include <vector>

#include "protocol/coordinator.hpp"
#include "protocol/member.hpp"

namespace pyccl::sim {

class World;
class PeerNode;
class CoordinatorNode;

class Check {
 public:
  explicit Check(World& world) : world_(world) {}
  virtual ~Check() = default;

  virtual void persisted(const protocol::CoordinatorState&) {}
  virtual void coordinator_sends(const CoordinatorNode&, PeerId, const protocol::Message&) {}
  // The number is that of the connection; it rises with each that the peer dials.
  virtual void heard_coordinator(const PeerNode&, std::uint64_t, const protocol::Message&) {}
  virtual void installed(const PeerNode&, const protocol::View&) {}
  virtual void posted(const PeerNode&, OpKey, const protocol::Call&) {}
  // What the peer may not post, and what it was told.
  virtual void refused(const PeerNode&, const protocol::Call&, const Status&) {}
  virtual void started(const PeerNode&, OpId, std::uint32_t) {}
  virtual void committed(const PeerNode&, OpId, bool) {}
  virtual void failed(const PeerNode&, OpKey, const Status&) {}
  virtual void withdrawn(const PeerNode&, OpKey) {}
  virtual void update_called(const PeerNode&, Time) {}
  virtual void update_finished(const PeerNode&, const Status&) {}
  virtual void leave_called(const PeerNode&, Time) {}
  virtual void left(const PeerNode&) {}
  virtual void ended(const PeerNode&, const Status&) {}
  virtual void died(const PeerNode&) {}
  virtual void settled(const PeerNode&) {}  // after each step of a peer
  virtual void time_passed() {}             // now and then
  virtual void finished() {}                // the run is over

 protected:
  World& world_;
};

// All families at once.
class Checks final : public Check {
 public:
  explicit Checks(World& world);

  void persisted(const protocol::CoordinatorState&) override;
  void coordinator_sends(const CoordinatorNode&, PeerId, const protocol::Message&) override;
  void heard_coordinator(const PeerNode&, std::uint64_t, const protocol::Message&) override;
  void installed(const PeerNode&, const protocol::View&) override;
  void posted(const PeerNode&, OpKey, const protocol::Call&) override;
  void refused(const PeerNode&, const protocol::Call&, const Status&) override;
  void started(const PeerNode&, OpId, std::uint32_t) override;
  void committed(const PeerNode&, OpId, bool) override;
  void failed(const PeerNode&, OpKey, const Status&) override;
  void withdrawn(const PeerNode&, OpKey) override;
  void update_called(const PeerNode&, Time) override;
  void update_finished(const PeerNode&, const Status&) override;
  void leave_called(const PeerNode&, Time) override;
  void left(const PeerNode&) override;
  void ended(const PeerNode&, const Status&) override;
  void died(const PeerNode&) override;
  void settled(const PeerNode&) override;
  void time_passed() override;
  void finished() override;

 private:
  template <class... Parameters, class... Arguments>
  void tell(void (Check::*hook)(Parameters...), Arguments&&... arguments) {
    for (const auto& family : families_) (*family.*hook)(arguments...);
  }

  std::vector<std::unique_ptr<Check>> families_;
};

std::unique_ptr<Check> check_views(World&);
std::unique_ptr<Check> check_outcomes(World&);
std::unique_ptr<Check> check_newcomers(World&);
std::unique_ptr<Check> check_eviction(World&);
std::unique_ptr<Check> check_lines(World&);
std::unique_ptr<Check> check_calls(World&);
std::unique_ptr<Check> check_boundaries(World&);
std::unique_ptr<Check> check_bounds(World&);
std::unique_ptr<Check> check_subgroups(World&);

}  // namespace pyccl::sim
