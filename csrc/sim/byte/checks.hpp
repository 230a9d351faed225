// What must hold in the byte world. Each family of invariants is a ByteCheck in a file of its own
// (check_*.cpp); peers and the coordinator report to all of them.
#pragma once

#include <memory>
#include <vector>

#include "engine/peer.hpp"
#include "protocol/coordinator.hpp"
#include "sim/byte/peer.hpp"

namespace pyccl::sim {

class ByteWorld;

class ByteCheck {
 public:
  explicit ByteCheck(ByteWorld& world) : world_(world) {}
  virtual ~ByteCheck() = default;

  virtual void persisted(const protocol::CoordinatorState&) {}
  virtual void installed(const BytePeer&, const protocol::View&) {}
  // When it has its number.
  virtual void posted(const BytePeer&, const Posting&) {}
  // `undisturbed`: no view ended while it ran its last attempt.
  virtual void finished(const BytePeer&, const Posting&, const engine::Finished&, bool) {}
  virtual void left(const BytePeer&, const Status&) {}  // leave() has ended
  virtual void ended(const BytePeer&, const Status&) {}
  virtual void died(const BytePeer&) {}
  virtual void settled(const BytePeer&) {}  // after each turn
  virtual void time_passed() {}             // now and then
  virtual void run_over() {}

 protected:
  ByteWorld& world_;
};

// All families at once.
class ByteChecks final {
 public:
  explicit ByteChecks(ByteWorld& world);

  template <class... Parameters, class... Arguments>
  void tell(void (ByteCheck::*hook)(Parameters...), Arguments&&... arguments) {
    for (const auto& family : families_) (*family.*hook)(arguments...);
  }

 private:
  std::vector<std::unique_ptr<ByteCheck>> families_;
};

std::unique_ptr<ByteCheck> check_byte_views(ByteWorld&);
std::unique_ptr<ByteCheck> check_byte_outcomes(ByteWorld&);
std::unique_ptr<ByteCheck> check_byte_results(ByteWorld&);
std::unique_ptr<ByteCheck> check_byte_progress(ByteWorld&);
std::unique_ptr<ByteCheck> check_byte_memory(ByteWorld&);
std::unique_ptr<ByteCheck> check_byte_calls(ByteWorld&);
std::unique_ptr<ByteCheck> check_byte_accounts(ByteWorld&);

}  // namespace pyccl::sim
