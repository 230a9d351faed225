// S3, S8, S10: what a member commits is, bit for bit, the reduction over the members of one view,
// each once and nobody else, and it is told so.
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "sim/byte/world.hpp"

namespace pyccl::sim {
namespace {

using Calls = std::vector<const ByteCall*>;

class CheckResults final : public ByteCheck {
 public:
  using ByteCheck::ByteCheck;

  void posted(const BytePeer& peer, const Posting& posting) override {
    const OperationName name = world_.history.name(peer.engine().view().epoch, *posting.key);
    calls_[name][peer.id()] = posting.call;
  }

  void finished(const BytePeer& peer, const Posting& posting, const engine::Finished& result,
                bool) override {
    if (!result.status.ok()) return;
    const OperationName name = world_.history.name(result.info.epoch, *posting.key);
    const std::string what =
        peer.name() + " commits " + to_string(OpId{result.info.epoch, name.key});
    const Calls calls = contributors(peer, name, result.info, what);
    if (!world_.running()) return;
    check_info(calls, result.info, what);
    const auto own = std::ranges::find(calls, posting.call.get());
    const auto rank = static_cast<Rank>(own - calls.begin());
    const std::vector<Bytes>& expected = results_of({name, result.info.epoch}, calls, rank);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const ByteView got = posting.call->result(i, expected[i].size());
      if (std::equal(got.begin(), got.end(), expected[i].begin(), expected[i].end())) continue;
      const auto at = std::ranges::mismatch(got, expected[i]).in1 - got.begin();
      return world_.fail("S3", what + " with wrong bits in array " + std::to_string(i) + " of " +
                                   std::to_string(got.size()) + " bytes, from byte " +
                                   std::to_string(at) + ", " + result.info.algorithm +
                                   ", attempt " + std::to_string(result.info.attempts));
    }
  }

 private:
  // The calls of all members of the view, in rank order; fails if they can't have made a result.
  Calls contributors(const BytePeer& peer, const OperationName& name,
                     const engine::OperationInfo& info, const std::string& what) {
    const protocol::View* view = world_.history.view(info.epoch);
    if (view == nullptr || view->find(peer.id()) == nullptr) {
      world_.fail("S3", what + ", a view that it was not in");
      return {};
    }
    Calls calls;
    for (const PeerId member : view->group_members(name.key.group)) {
      const auto& known = calls_[name];
      const auto call = known.find(member);
      if (call == known.end()) {
        world_.fail("S3", what + " without a call of " + to_string(member));
        return {};
      }
      calls.push_back(call->second.get());
      const auto odd = std::ranges::find_if(
          calls, [&](const ByteCall* other) { return !calls.back()->agrees_with(*other); });
      if (odd != calls.end()) {
        world_.fail("C8", what + " though the calls differ: " + to_string(**odd) + ", " +
                              to_string(*calls.back()));
        return {};
      }
    }
    return calls;
  }

  void check_info(const Calls& calls, const engine::OperationInfo& info, const std::string& what) {
    std::int32_t contributing = 0;
    double weight_sum = 0.0;
    for (const ByteCall* call : calls) {
      contributing += call->weight() > 0.0 ? 1 : 0;
      weight_sum += call->weight();
    }
    if (info.members != static_cast<std::int32_t>(calls.size()) ||
        info.world_size != contributing || info.weight_sum != weight_sum) {
      world_.fail("S3", what + " and hears of other contributors");
    }
  }

  const std::vector<Bytes>& results_of(const std::pair<OperationName, Epoch>& which,
                                       const Calls& calls, Rank rank) {
    const bool alike = calls.front()->shape().kind == collectives::Kind::all_reduce;
    const auto [entry, first] = results_.try_emplace({which, alike ? 0 : rank});
    if (first) {
      for (std::size_t i = 0; i < calls.front()->shape().arrays.size(); ++i) {
        entry->second.push_back(ByteCall::expected(calls, i, rank));
      }
    }
    return entry->second;
  }

  std::map<OperationName, std::map<PeerId, std::shared_ptr<ByteCall>>> calls_;
  std::map<std::pair<std::pair<OperationName, Epoch>, Rank>, std::vector<Bytes>> results_;
};

}  // namespace

std::unique_ptr<ByteCheck> check_byte_results(ByteWorld& world) {
  return std::make_unique<CheckResults>(world);
}

}  // namespace pyccl::sim
