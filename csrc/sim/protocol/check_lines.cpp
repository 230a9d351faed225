// R12: a peer has one connection to the coordinator at a time. Once it has heard anything on a new
// one, nothing of a former one reaches it; and it does not stay with a coordinator that is older
// than the last.
#include <algorithm>
#include <map>

#include "sim/protocol/world.hpp"

namespace pyccl::sim {
namespace {

class CheckLines final : public Check {
 public:
  using Check::Check;

  void heard_coordinator(const PeerNode& peer, std::uint64_t line,
                         const protocol::Message& message) override {
    Heard& heard = heard_[peer.id()];
    if (line < heard.line) {
      world_.fail("R12", peer.name() + " hears what a former connection brought");
    }
    if (line == heard.older_line) {
      world_.fail("R12", peer.name() + " listens to an older coordinator");
    }
    heard.line = std::max(heard.line, line);
    if (const auto* welcome = std::get_if<protocol::Welcome>(&message)) {
      if (welcome->incarnation < heard.incarnation) heard.older_line = line;
      heard.incarnation = std::max(heard.incarnation, welcome->incarnation);
    }
  }

  void died(const PeerNode& peer) override { heard_.erase(peer.id()); }

 private:
  struct Heard {
    std::uint64_t line = 0;
    std::uint64_t older_line = 0;  // none
    std::uint32_t incarnation = 0;
  };
  std::map<PeerId, Heard> heard_;
};

}  // namespace

std::unique_ptr<Check> check_lines(World& world) { return std::make_unique<CheckLines>(world); }

}  // namespace pyccl::sim
