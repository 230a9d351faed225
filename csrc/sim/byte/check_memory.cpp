// C4, S7: inputs survive a failure, nothing outside the arrays is ever written, and once a call has
// ended its memory is the caller's alone.
#include <deque>
#include <string>

#include "sim/byte/world.hpp"

namespace pyccl::sim {
namespace {

constexpr std::size_t graves_max = 64;

class CheckMemory final : public ByteCheck {
 public:
  using ByteCheck::ByteCheck;

  void finished(const BytePeer& peer, const Posting& posting, const engine::Finished& result,
                bool) override {
    ByteCall& call = *posting.call;
    const std::string what =
        peer.name() + ", " + (posting.key ? to_string(*posting.key) : "a refused call");
    if (!call.guards_intact()) world_.fail("S7", what + ": written outside its arrays");
    if (!result.status.ok() && !call.inputs_hold_inputs()) {
      world_.fail("C4",
                  what + ": an input is not what it was; it failed: " + result.status.reason());
    }
    if (!call.separate_inputs_intact()) world_.fail("C4", what + ": an input has been written");
    call.poison();
    graves_.push_back({posting.call, what});
    if (graves_.size() > graves_max) look_into_oldest();
  }

  void run_over() override {
    while (!graves_.empty()) look_into_oldest();
  }

 private:
  struct Grave {
    std::shared_ptr<ByteCall> call;
    std::string what;
  };

  void look_into_oldest() {
    Grave& grave = graves_.front();
    if (!grave.call->poison_intact()) {
      world_.fail("S7", grave.what + ": written after its end");
    }
    grave.call->free();
    graves_.pop_front();
  }

  std::deque<Grave> graves_;
};

}  // namespace

std::unique_ptr<ByteCheck> check_byte_memory(ByteWorld& world) {
  return std::make_unique<CheckMemory>(world);
}

}  // namespace pyccl::sim
