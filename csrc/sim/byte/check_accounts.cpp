// S11, S12: an operation sends what its plan says, early data stays within its budget, and staging
// memory goes back with the operations that took it.
#include <algorithm>
#include <string>
#include <vector>

#include "collectives/select.hpp"
#include "engine/agreed_links.hpp"
#include "engine/coded_data.hpp"
#include "engine/executor.hpp"
#include "engine/layout.hpp"
#include "sim/byte/world.hpp"

namespace pyccl::sim {
namespace {

using kernels::DataType;

// What one rank sends of the arrays of one type, by the plan.
std::uint64_t forecast(const engine::Request& request, DataType dtype, Rank self, Rank world,
                       const collectives::Links& links) {
  const collectives::Shape shape = engine::lay_out(request, dtype, self, world).shape;
  const auto algorithm =
      collectives::choose(request.kind, shape, engine::algorithm_of(request), links);
  const collectives::Plan plan = collectives::make_plan(request.kind, algorithm, self, shape, links,
                                                        collectives::Reach::network);
  using collectives::Source;
  const std::uint64_t partial_bytes =
      request.quantization.on() && world > 1
          ? engine::CodedData::sizes_of(request.quantization, dtype).partial
          : shape.element_bytes;
  std::uint64_t bytes = 0;
  for (const auto& step : plan.steps) {
    for (const auto& send : step.sends) {
      const bool partial = send.source == Source::partial || send.source == Source::weighted_input;
      bytes += send.range.size() * (partial ? partial_bytes : shape.element_bytes);
    }
  }
  return bytes;
}

class CheckAccounts final : public ByteCheck {
 public:
  using ByteCheck::ByteCheck;

  void finished(const BytePeer& peer, const Posting& posting, const engine::Finished& result,
                bool undisturbed) override {
    const engine::OperationInfo& info = result.info;
    // Who has weight 0 sends less; that has a check of its own in the plans.
    if (!result.status.ok() || !undisturbed || info.world_size != info.members) return;
    const protocol::View& view = *world_.history.view(info.epoch);
    const auto rank = view.rank_of(peer.id());
    const auto peers = view.group_members(posting.key->group);
    engine::AgreedLinks links;
    links.install(view, posting.key->group);
    std::uint64_t bytes = 0;
    engine::Request request = posting.call->request(posting.tag, posting.deadline);
    const auto root = std::ranges::find(peers, posting.call->root());
    if (root != peers.end()) request.root = static_cast<Rank>(root - peers.begin());
    for (const DataType dtype : engine::types_of(request)) {
      bytes += forecast(request, dtype, *rank, info.members, links.among(peers));
    }
    // Compression makes them fewer.
    const bool may_pack = request.quantization.zstd || !request.input_widths.empty();
    const bool packed = may_pack && info.bytes_packed > 0;
    if (packed ? info.bytes_sent >= bytes : info.bytes_sent != bytes) {
      world_.fail("S12", peer.name() + " sent " + std::to_string(info.bytes_sent) + " bytes of " +
                             to_string(*posting.key) + ", the plan says " + std::to_string(bytes) +
                             " for " + info.algorithm);
    }
  }

  void settled(const BytePeer& peer) override {
    const engine::PeerLoad load = peer.engine().load();
    if (load.operations == 0 && load.slots > 0) {
      world_.fail("S13", peer.name() + " keeps " + std::to_string(load.slots) +
                             " slots without an operation");
    }
    if (load.stash_bytes_most > 2 * engine::eager_bytes_max) {
      world_.fail("S11", peer.name() + " keeps more early data than anybody may send");
    }
  }
};

}  // namespace

std::unique_ptr<ByteCheck> check_byte_accounts(ByteWorld& world) {
  return std::make_unique<CheckAccounts>(world);
}

}  // namespace pyccl::sim
