// C3: no call outlasts its deadline; an operation, which may need a decision of the others, not
// more than the decision limit beyond it. Only time in which the process itself was stopped is
// excused.
#include <algorithm>
#include <string>

#include "sim/byte/world.hpp"

namespace pyccl::sim {
namespace {

constexpr Duration slack = 100ms;

class CheckCalls final : public ByteCheck {
 public:
  using ByteCheck::ByteCheck;

  // Nothing stands in the way of a leave; an end that came first has taken the peer out already.
  void left(const BytePeer& peer, const Status& status) override {
    if (status.ok() || status.code() == Code::closed) return;
    world_.fail("leave", peer.name() + " could not leave: " + status.reason());
  }

  void time_passed() override {
    for (const auto& peer : world_.living()) {
      if (!peer->paused()) look(*peer);
    }
  }

 private:
  void look(const BytePeer& peer) {
    const auto late = [&](Time deadline, Duration more) {
      return std::max(deadline, peer.paused_until) + more + slack < world_.clock.now();
    };
    for (const auto& [ticket, posting] : peer.open()) {
      if (!late(posting.deadline, world_.timing.decision_limit)) continue;
      world_.fail("C3", peer.name() + " still waits for " +
                            (posting.key ? to_string(*posting.key) : "a refused call"));
    }
    if (peer.update_deadline() && late(*peer.update_deadline(), Duration(0))) {
      world_.fail("C3", peer.name() + " still waits in update()");
    }
    if (peer.connect_deadline() && late(*peer.connect_deadline(), Duration(0))) {
      world_.fail("C3", peer.name() + " still waits to be admitted");
    }
    if (peer.leave_deadline() && late(*peer.leave_deadline(), Duration(0))) {
      world_.fail("C3", peer.name() + " still waits in leave()");
    }
  }
};

}  // namespace

std::unique_ptr<ByteCheck> check_byte_calls(ByteWorld& world) {
  return std::make_unique<CheckCalls>(world);
}

}  // namespace pyccl::sim
