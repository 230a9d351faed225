// A coordinator and some peers on a network without faults; see trial.hpp.
#include "sim/byte/trial.hpp"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "base/assert.hpp"
#include "engine/coordinator_host.hpp"
#include "engine/peer.hpp"
#include "sim/byte/alarm.hpp"
#include "sim/byte/call.hpp"
#include "sim/clock.hpp"
#include "sim/network.hpp"

namespace pyccl::sim {
namespace {

constexpr Duration patience = 1h;  // virtual
constexpr std::uint64_t without_limit = 1'000'000'000'000;

NetworkOptions quiet_network(const TrialOptions& options) {
  NetworkOptions network;
  network.latency_min = network.latency_max = options.latency;
  network.tail_percent = network.split_percent = 0;
  network.bytes_per_second = without_limit;
  network.buffer_bytes = 64 << 20;
  network.silence_limit = 60s;
  return network;
}

class Memory final : public engine::StateStore {
 public:
  Status write(const protocol::CoordinatorState&) override { return {}; }
};

// One peer's process.
class Subject {
 public:
  Subject(SimulatedNetwork& network, std::size_t number, const TrialOptions& options)
      : host_(network.host("10.0.0." + std::to_string(number + 1))),
        alarm_(network.clock(), host_),
        clock_(network.clock()) {
    network.set_host_rate(host_.name(), options.bytes_per_second);
    host_.set_turn_delay(2us);
    host_.set_turn([this] { turn(); });
  }

  void start(const std::string& coordinator, std::uint64_t number) {
    engine::PeerOptions options;
    options.peer = PeerId{number + 1};
    options.coordinator = {coordinator};
    options.listen = host_.name() + ":0";
    options.connect_deadline = clock_.now() + patience;
    auto opened = engine::Peer::open(options, host_, clock_);
    PYCCL_ASSERT(opened.ok());
    engine_ = opened.take();
    host_.wake();
  }

  const std::string& host() const { return host_.name(); }
  std::size_t members() const { return engine_->view().members.size(); }
  const protocol::View& view() const { return engine_->view(); }

  void update() {
    ended_.reset();
    engine_->update(++ticket_, clock_.now() + patience);
    host_.wake();
  }

  void call(ByteCall& call) {
    call_ = &call;
    ended_.reset();
    whole_.reset();
    right_bytes_ = 0;
    engine_->call(++ticket_, call.request(0, clock_.now() + patience));
    host_.wake();
  }
  void expect(Bytes result) { expected_ = std::move(result); }

  bool over() const { return ended_.has_value(); }
  const engine::Finished& outcome() const { return ended_->second; }
  Time ended_at() const { return ended_->first; }
  Time whole_at() const { return whole_.value_or(ended_->first); }
  bool right() const { return right_bytes_ == expected_.size(); }

 private:
  void turn() {
    host_.poll();
    if (const auto due = engine_->next_deadline(); due && *due <= clock_.now()) engine_->tick();
    engine_->end_turn();
    look_at_result();
    for (auto& event : std::exchange(engine_->events, {})) {
      auto* end = std::get_if<engine::Finished>(&event);
      if (end != nullptr && end->ticket == ticket_) ended_ = {clock_.now(), std::move(*end)};
    }
    alarm_.set(engine_->next_deadline());
  }

  // Up to where it is what it must become.
  void look_at_result() {
    if (call_ == nullptr || whole_) return;
    const ByteView result = call_->result(0, expected_.size());
    const auto from = static_cast<std::ptrdiff_t>(right_bytes_);
    const auto wrong =
        std::mismatch(expected_.begin() + from, expected_.end(), result.begin() + from).first;
    right_bytes_ = static_cast<std::size_t>(wrong - expected_.begin());
    if (right()) whole_ = clock_.now();
  }

  SimulatedHost& host_;
  Alarm alarm_;
  Clock& clock_;
  std::unique_ptr<engine::Peer> engine_;
  engine::Ticket ticket_ = 0;
  ByteCall* call_ = nullptr;
  Bytes expected_;
  std::size_t right_bytes_ = 0;
  std::optional<Time> whole_;
  std::optional<std::pair<Time, engine::Finished>> ended_;
};

class Trial {
 public:
  explicit Trial(const TrialOptions& options)
      : options_(options), network_(clock_, 1, quiet_network(options)), prng_(1) {
    auto& host = network_.host("10.0.1.1");
    engine::CoordinatorHostOptions coordinator;
    coordinator.listen = "10.0.1.1:4000";
    coordinator.machine.fresh_run = RunId{1};
    auto opened = engine::CoordinatorHost::open(coordinator, host, clock_, memory_);
    PYCCL_ASSERT(opened.ok());
    coordinator_ = opened.take();
    alarm_ = std::make_unique<Alarm>(clock_, host);
    host.set_turn([this, &host] {
      host.poll();
      if (const auto due = coordinator_->next_deadline(); due && *due <= clock_.now()) {
        coordinator_->tick();
      }
      coordinator_->end_turn();
      alarm_->set(coordinator_->next_deadline());
    });
    host.wake();
    for (std::size_t i = 0; i < options.peers; ++i) {
      peers_.push_back(std::make_unique<Subject>(network_, i, options_));
    }
    if (options.slow) {
      network_.set_path(peers_[options.slow->a]->host(), peers_[options.slow->b]->host(),
                        {options.latency, options.slow->bytes_per_second});
    }
  }

  TrialResult run() {
    TrialResult result;
    result.failure = gather();
    for (int round = 0; round < options_.rounds && result.failure.empty(); ++round) {
      rest();
      result.failure = call(result.rounds.emplace_back());
      rest();
      if (result.failure.empty()) result.failure = update();
    }
    return result;
  }

 private:
  bool until(const std::function<bool()>& reached) {
    const Time end = clock_.now() + patience;
    while (!reached() && clock_.now() < end) {
      if (!clock_.step()) return false;
    }
    return reached();
  }

  void rest() {
    const Time end = clock_.now() + 1s;
    clock_.at(end, [] {});
    until([&] { return clock_.now() >= end; });
  }

  // All become members of one view.
  std::string gather() {
    const std::string address = coordinator_->address();
    peers_[0]->start(address, 0);
    if (!until([&] { return peers_[0]->members() == 1; })) return "the first peer is not admitted";
    for (std::size_t i = 1; i < peers_.size(); ++i) peers_[i]->start(address, i);
    if (!until([&] { return coordinator_->machine()->joiner_count() + 1 == peers_.size(); })) {
      return "a joiner does not arrive";
    }
    peers_[0]->update();
    const bool together = until([&] {
      return std::ranges::all_of(
          peers_, [&](const auto& peer) { return peer->members() == peers_.size(); });
    });
    return together ? "" : "not all peers are admitted";
  }

  std::string update() {
    for (const auto& peer : peers_) peer->update();
    return ended("update()");
  }

  std::string ended(const std::string& what) {
    if (!until([&] {
          return std::ranges::all_of(peers_, [](const auto& peer) { return peer->over(); });
        })) {
      return what + " does not end";
    }
    for (const auto& peer : peers_) {
      const Status& status = peer->outcome().status;
      if (!status.ok()) return what + ": " + status.reason();
    }
    return "";
  }

  std::vector<PeerId> members() const {
    return peers_[0]->view().group_members(group_id("default"));
  }

  // Whose operation each one is, in rank order: that of all, or those of neighbours.
  std::vector<std::vector<PeerId>> teams() const {
    const auto ranks = members();
    if (options_.kind != collectives::Kind::exchange) return {ranks};
    std::vector<std::vector<PeerId>> pairs;
    for (std::size_t rank = 0; rank < ranks.size(); rank += 2) {
      pairs.push_back({ranks[rank], ranks[rank + 1]});
    }
    return pairs;
  }

  std::string call(TrialRound& round) {
    CallShape shape;
    shape.kind = options_.kind;
    shape.algorithm = options_.algorithm;
    shape.arrays = {{kernels::DataType::f32, options_.bytes / sizeof(float)}};
    const bool cut = options_.kind == collectives::Kind::reduce_scatter ||
                     options_.kind == collectives::Kind::all_to_all;
    if (cut) shape.on_loss = engine::OnLoss::raise;
    std::vector<std::unique_ptr<ByteCall>> calls;
    std::vector<Bytes> results;
    for (const std::vector<PeerId>& ranks : teams()) {
      std::vector<const ByteCall*> all;
      for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
        const Caller caller{static_cast<Rank>(rank), ranks, false};
        calls.push_back(std::make_unique<ByteCall>(next_call_++, shape, caller, prng_));
        all.push_back(calls.back().get());
      }
      for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
        results.push_back(ByteCall::expected(all, 0, static_cast<Rank>(rank)));
      }
    }
    const Time begin = clock_.now();
    const auto ranks = members();
    for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
      Subject& peer = *peers_[ranks[rank].value - 1];
      peer.expect(std::move(results[rank]));
      peer.call(*calls[rank]);
    }
    const std::string failure = ended(to_string(*calls.front()));
    if (!failure.empty()) return failure;
    std::uint64_t sent = 0;
    for (const auto& peer : peers_) {
      if (!peer->right()) return "a result is wrong";
      const engine::OperationInfo& info = peer->outcome().info;
      round.algorithm = info.algorithm;
      round.whole = std::max(round.whole, peer->whole_at() - begin);
      round.committed = std::max(round.committed, peer->ended_at() - begin);
      sent = std::max(sent, info.bytes_sent);
    }
    round.sending =
        Duration(static_cast<std::int64_t>(sent * 1'000'000'000 / options_.bytes_per_second));
    return "";
  }

  const TrialOptions options_;
  Clock clock_;
  SimulatedNetwork network_;
  Prng prng_;
  Memory memory_;
  std::unique_ptr<engine::CoordinatorHost> coordinator_;
  std::unique_ptr<Alarm> alarm_;
  std::vector<std::unique_ptr<Subject>> peers_;
  std::uint64_t next_call_ = 1;
};

}  // namespace

TrialResult run_trial(const TrialOptions& options) { return Trial(options).run(); }

}  // namespace pyccl::sim
