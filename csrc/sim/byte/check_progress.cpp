// Nothing gets lost for good: an operation that all members have posted ends before its deadline,
// and without a decision on it, when nothing has been wrong for long enough.
#include <algorithm>
#include <map>
#include <vector>

#include "sim/byte/world.hpp"

namespace pyccl::sim {
namespace {

// To dial again and to send again what was lost.
constexpr Duration recovery = 1500ms;

class CheckProgress final : public ByteCheck {
 public:
  using ByteCheck::ByteCheck;

  void installed(const BytePeer&, const protocol::View&) override {
    installed_.push_back(world_.clock.now());
  }

  void posted(const BytePeer& peer, const Posting& posting) override {
    const OperationName name = world_.history.name(peer.engine().view().epoch, *posting.key);
    posted_[name][peer.id()] = {world_.clock.now(), posting.deadline};
  }

  void finished(const BytePeer& peer, const Posting& posting, const engine::Finished& result,
                bool) override {
    const Status& status = result.status;
    if (!posting.key || !(status.ok() || status.code() == Code::timeout)) return;
    const protocol::View& view = peer.engine().view();
    const OperationName name = world_.history.name(view.epoch, *posting.key);
    Time begun;
    Time expired = never;
    for (const PeerId member : view.group_members(posting.key->group)) {
      const auto found = posted_[name].find(member);
      if (found == posted_[name].end()) return;
      begun = std::max(begun, found->second.first);
      expired = std::min(expired, found->second.second);
    }
    // Before that, a failure is news of one who gave up earlier and may not be a member any more.
    if (world_.clock.now() < expired) return;
    const auto after = std::ranges::upper_bound(installed_, expired);
    if (after != installed_.begin()) begun = std::max(begun, *std::prev(after));
    const Time calm = std::max({begun, world_.trouble, world_.doubt});
    if (expired - calm < recovery + transfer_time()) return;
    world_.fail("progress", peer.name() + " waited until the deadline of " +
                                to_string(*posting.key) +
                                ", and nothing was wrong: " + status.reason());
  }

 private:
  // What a step may take on one stream, at the most.
  Duration transfer_time() const {
    const ByteSwarm& swarm = world_.swarm;
    const NetworkOptions& network = swarm.network;
    const Duration tail = network.tail_percent > 0 ? network.tail_max : Duration(0);
    const double round = std::chrono::duration<double>(2 * (network.latency_max + tail)).count();
    const double rate = std::min(static_cast<double>(network.bytes_per_second),
                                 static_cast<double>(network.buffer_bytes) / round);
    const auto arrays = static_cast<double>(swarm.list_percent > 0 ? 5 : 1);
    const auto headers = 1.0 + 64.0 / swarm.segment_bytes;
    const double operation = 2 * 8 * static_cast<double>(swarm.count_most) * arrays * headers;
    const double seconds = swarm.tags * swarm.depth * operation / rate;
    return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  }

  std::vector<Time> installed_;
  std::map<OperationName, std::map<PeerId, std::pair<Time, Time>>> posted_;
};

}  // namespace

std::unique_ptr<ByteCheck> check_byte_progress(ByteWorld& world) {
  return std::make_unique<CheckProgress>(world);
}

}  // namespace pyccl::sim
