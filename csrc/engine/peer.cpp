// The parts of a peer put together: what the Member asks for is done here, what the channels and
// the executor observe goes to the Member.
//
// Callbacks only note facts; everything that follows from them happens in end_turn(), when no
// callback is on the stack. So nothing is freed under the feet of its caller.
#include "engine/peer.hpp"

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "engine/agreed_links.hpp"
#include "engine/call.hpp"
#include "engine/coordinator_link.hpp"
#include "engine/executor.hpp"
#include "engine/link_meter.hpp"
#include "engine/mesh.hpp"
#include "engine/publishing.hpp"
#include "engine/waiting_calls.hpp"
#include "protocol/codec.hpp"
#include "protocol/member.hpp"

namespace pyccl::engine {
namespace {

constexpr Duration idle_limit = 30s;  // then memory that was kept warm is let go

template <class... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};

class PeerImplementation final : public Peer,
                                 private MeshHost,
                                 private ExecutorHost,
                                 private CoordinatorLinkHost {
 public:
  PeerImplementation(const PeerOptions& options, transport::Network& network, const Clock& clock)
      : options_(options),
        clock_(clock),
        mesh_(mesh_options(options), network, clock, *this),
        link_(*this, network, clock, options.coordinator, options.seed + 1),
        executor_(*this, options.peer, options.segment_bytes),
        publishing_(std::uint64_t{4} * options.segment_bytes),
        waiting_(options.peer, group_id(options.group)),
        meter_(options.measured_bytes_min) {}

  Status start() {
    Status listening = mesh_.listen();
    if (!listening.ok()) return listening;
    protocol::MemberOptions member;
    member.peer = options_.peer;
    member.group = options_.group;
    member.role = options_.role;
    member.addresses = options_.advertise;
    if (member.addresses.empty()) member.addresses.push_back(mesh_.address());
    member.timing = options_.timing;
    member_.emplace(member, clock_.now());
    link_.start();
    return {};
  }

  void call(Ticket ticket, Request request) override {
    // A mirror holds what the others compute and adds nothing.
    if (options_.role == protocol::Role::mirror) request.weight = 0.0;
    const Status checked = check(request);
    if (!checked.ok()) {
      finished(ticket, checked);
      return;
    }
    if (!usable(ticket)) return;
    const protocol::Numbering numbers{group_of(request, group_id(options_.group)), request.tag};
    WaitingCall call{ticket, std::move(request), clock_.now()};
    if (call.request.sources.empty() && !cancelling(numbers) && !waiting_.want(numbers)) {
      post(std::move(call));
      return;
    }
    waiting_.add(std::move(call), view());
    post_waiting();
  }

  void update(Ticket ticket, Time deadline) override {
    if (!usable(ticket)) return;
    if (update_) drain();  // the one before may have ended in this turn
    if (update_) {
      finished(ticket, Status(Code::invalid_argument, "update() is already running"));
      return;
    }
    measure();  // the next view will go by it
    const Status status = member_->request_update(clock_.now(), deadline);
    if (status.ok()) {
      update_ = ticket;
    } else {
      finished(ticket, status);
    }
  }

  void leave(Ticket ticket, Time deadline) override {
    if (!usable(ticket)) return;
    const Status status = member_->request_leave(clock_.now(), deadline);
    if (status.ok()) {
      leave_ = ticket;
    } else {
      finished(ticket, status);
    }
  }

  void cancel(Ticket ticket) override {
    if (waiting_.remove(ticket)) {
      finished(ticket, cancelled());
      return;
    }
    if (update_ == ticket) {
      // Ended at once, so that the caller may ask anew. If it is over already, it ends as it did.
      if (!member_->withdraw_update()) return;
      finished(*std::exchange(update_, std::nullopt), cancelled());
      return;
    }
    const auto found = keys_.find(ticket);
    if (ended_ || found == keys_.end()) return;
    const Operation* operation = executor_.find(found->second);
    if (operation != nullptr && operation->request().ends_for_all) {
      return member_->refuse(clock_.now(), found->second, given_up());
    }
    member_->refuse(clock_.now(), found->second, cancelled());
    // Not at the decision but now: the caller wants its memory back.
    give_back_.push_back(found->second);
  }

  void close() override {
    if (!closed_) end(Status(Code::closed, "the communicator has been closed"));
    closed_ = true;
    link_.close();
    mesh_.close(Status(Code::closed, "the peer has closed"));
  }

  void tick() override {
    if (closed_) return;
    const Time now = clock_.now();
    if (!ended_) {
      member_->tick(now);
      link_.tick();
      mesh_.tick();
      while (const auto late = waiting_.expire(now)) finished(late->first, late->second);
      if (member_->joining() && now >= options_.connect_deadline) end(link_.why_not_admitted());
    }
    if (idle_since_ && now - *idle_since_ >= idle_limit) {
      executor_.trim();
      idle_since_.reset();
    }
  }

  std::optional<Time> next_deadline() const override {
    if (closed_) return std::nullopt;
    if (busy_) return clock_.now();
    std::optional<Time> next;
    if (idle_since_) next = *idle_since_ + idle_limit;
    if (ended_) return next;
    next = earlier(next, earlier(mesh_.next_deadline(), link_.next_deadline()));
    next = earlier(next, member_->next_deadline());
    if (member_->joining()) next = earlier(next, options_.connect_deadline);
    return earlier(next, waiting_.next_deadline());
  }

  void end_turn() override {
    if (closed_) return;
    if (!executor_.idle() && meter_.due(clock_.now())) measure();
    send();
    const bool works = executor_.has_work();
    busy_ = works && executor_.work();  // behind what others wait for
    if (works) send();
    if (!publishing_.empty()) publish();
    busy_ = busy_ || !publishing_.empty();
  }

  const protocol::View& view() const override { return member_->view(); }
  std::string address() const override { return mesh_.address(); }
  std::optional<OpKey> key_of(Ticket ticket) const override {
    const auto found = keys_.find(ticket);
    return found == keys_.end() ? std::nullopt : std::optional(found->second);
  }
  bool undecided() const override { return !released_.empty() || !give_back_.empty(); }
  bool boundary_due() const override { return member_->boundary_due(); }
  PeerLoad load() const override { return executor_.load(); }

 private:
  static MeshOptions mesh_options(const PeerOptions& options) {
    return {options.peer,   options.listen, options.connections, options.segment_bytes,
            options.timing, options.seed,   options.transport};
  }

  Status cancelled() const { return {Code::cancelled, "cancelled by its caller", options_.peer}; }
  Status given_up() const { return {Code::state_sync, "given up by a member", options_.peer}; }

  bool usable(Ticket ticket) {
    if (!ended_) return true;
    finished(ticket, end_reason_);
    return false;
  }

  void finished(Ticket ticket, Status status, OperationInfo info = {},
                std::optional<OpKey> op = {}) {
    events.push_back(Finished{ticket, std::move(status), std::move(info), op});
  }

  void post(WaitingCall asked) {
    const Ticket ticket = asked.ticket;
    Request& request = asked.request;
    idle_since_.reset();
    const GroupId group = group_of(request, group_id(options_.group));
    const std::vector<PeerId> ranks = ranks_of(request);
    const PeerId root = root_of(request, ranks);
    protocol::Call call = call_of(request, group, options_.peer, ranks);
    auto operation =
        std::make_unique<Operation>(ticket, std::move(request), root, root == options_.peer,
                                    options_.segment_bytes, asked.called, executor_.pools());
    call.descriptor = operation->descriptor();
    call.weight = operation->weight();
    const Result<OpKey> key = member_->post(clock_.now(), std::move(call));
    if (!key.ok()) {
      finished(ticket, key.status());
      return;
    }
    keys_[ticket] = key.value();
    executor_.add(key.value(), std::move(operation));
  }

  std::vector<PeerId> ranks_of(const Request& request) const {
    if (!request.members.empty()) return request.members;
    return view().group_members(group_id(options_.group));
  }

  bool cancelling(protocol::Numbering numbers) const {
    const auto concerns = [&](OpKey key) { return protocol::numbering(key) == numbers; };
    return std::ranges::any_of(released_, concerns) || std::ranges::any_of(give_back_, concerns);
  }

  void post_waiting() {
    if (waiting_.empty()) return;
    const auto undecided = [this](protocol::Numbering numbers) { return cancelling(numbers); };
    while (auto next = waiting_.next(*member_, clock_.now(), undecided)) {
      auto& [call, failure] = *next;
      if (failure.ok()) {
        post(std::move(call));
      } else {
        finished(call.ticket, failure);
      }
    }
  }

  void send() {  // all that is to leave at present, as far as the channels take it
    do {
      drain();
      executor_.pump();
    } while (!member_->outbox.empty());
    mesh_.flush();
    link_.flush();
  }

  // ---- what the Member asks for
  void drain() {
    while (!member_->outbox.empty() && !ended_) {
      const auto effects = std::exchange(member_->outbox, {});
      for (const protocol::MemberEffect& effect : effects) {
        if (ended_) break;
        std::visit([this](const auto& each) { carry_out(each); }, effect);
      }
    }
    if (ended_) member_->outbox.clear();
    if (!give_back_.empty()) waiting_.decided();  // should it be over already
    for (const OpKey key : std::exchange(give_back_, {})) release_memory(key);
    if (!ended_) post_waiting();
  }

  void carry_out(const protocol::SendToCoordinator& effect) { link_.send(effect.message); }

  void carry_out(const protocol::SendToPeer& effect) {
    transport::Channel* channel = mesh_.channel(effect.to);
    if (channel != nullptr) channel->send_message(protocol::encode(effect.message));
  }

  void carry_out(const protocol::RedialCoordinator& effect) { link_.redial(effect.reason); }

  void carry_out(const protocol::ConnectTo& effect) {
    mesh_.connect(effect.epoch, effect.run, effect.members);
  }

  void carry_out(const protocol::ViewInstalled& effect) {
    mesh_.install(effect.view);
    links_.install(effect.view, group_id(options_.group));
    waiting_.install(effect.view);
    executor_.install(effect.view);
    executor_.forget_groups([this](GroupId group) {
      return is_subgroup(group) && member_->participants({group, 0, 0}).empty();
    });
    for (const protocol::MemberInfo& member : effect.view.members) {
      if (member.peer != options_.peer && !mesh_.open(member.peer)) {
        member_->channel_broken(clock_.now(), member.peer);
      }
    }
    events.push_back(ViewChanged{effect.view});
  }

  void carry_out(const protocol::StartOperation& effect) {
    if (executor_.find(effect.op.key) == nullptr) return;
    const std::vector<PeerId>& ranks = member_->participants(effect.op.key);
    executor_.start(effect.op, effect.attempt, ranks, links_.among(ranks));
  }

  void carry_out(const protocol::PeerPosted& effect) {
    executor_.peer_posted(effect.op, effect.peer, effect.weight);
  }

  void carry_out(const protocol::OperationCommitted& effect) {
    finish(effect.op.key, {}, effect.hint);
  }

  void carry_out(const protocol::OperationFailed& effect) {
    finish(effect.op, effect.status, false);
  }

  void carry_out(const protocol::OperationWithdrawn& effect) {
    finish(effect.op, cancelled(), false);
    executor_.withdraw(effect.op);
  }

  void carry_out(const protocol::UpdateFinished& effect) {
    if (update_) finished(*std::exchange(update_, std::nullopt), effect.status);
  }

  void carry_out(const protocol::LeaveFinished&) {
    // Before the end, which would fail it like every other open call.
    if (leave_) finished(*std::exchange(leave_, std::nullopt), {});
    end(Status(Code::closed, "this peer has left the run"));
  }

  void carry_out(const protocol::Ended& effect) { end(effect.status); }

  void carry_out(const protocol::Note& effect) {
    events.push_back(Log{LogLevel::info, effect.text});
  }

  void finish(OpKey key, const Status& status, bool hint) {
    if (released_.erase(key) > 0) waiting_.decided();
    auto operation = executor_.finish(key, status.ok());
    if (operation == nullptr) return;
    keys_.erase(operation->ticket());
    if (status.ok() && publishing_.write_some(*operation)) {
      return publishing_.add({key, std::move(operation), hint});
    }
    if (status.ok() || !waits_for_another(*operation, status)) {
      finished(operation->ticket(), status, operation->info(clock_.now(), hint), key);
    }
    if (executor_.idle()) idle_since_ = clock_.now();
  }

  void publish() {
    for (const auto& [key, operation, hint] : publishing_.advance()) {
      finished(operation->ticket(), {}, operation->info(clock_.now(), hint), key);
    }
    if (executor_.idle()) idle_since_ = clock_.now();
  }

  bool waits_for_another(const Operation& operation, const Status& status) {
    if (operation.request().sources.empty()) return false;
    return waiting_.add_again({operation.ticket(), operation.request(), operation.called()}, status,
                              view());
  }

  // A cancelled operation: its memory is the caller's again, the number stays open until decided.
  void release_memory(OpKey key) {
    Operation* operation = executor_.find(key);
    if (operation == nullptr || member_->said_done(key) || !released_.insert(key).second) return;
    PYCCL_MARK("an operation is cancelled by its caller");
    keys_.erase(operation->ticket());
    const Ticket ticket = operation->ticket();
    executor_.finish(key, false);
    finished(ticket, cancelled(), {}, key);
  }

  void end(const Status& status) {
    if (ended_) return;
    ended_ = true;
    end_reason_ = status;
    while (!publishing_.empty()) publish();
    for (const auto& [ticket, key] : std::exchange(keys_, {})) {
      const auto operation = executor_.finish(key, false);
      finished(ticket, status, operation ? operation->info(clock_.now(), false) : OperationInfo{},
               key);
    }
    for (const Ticket ticket : waiting_.remove_all()) finished(ticket, status);
    if (update_) finished(*std::exchange(update_, std::nullopt), status);
    if (leave_) finished(*std::exchange(leave_, std::nullopt), status);
    events.push_back(Ended{status});
    link_.finish();
    mesh_.close(status);
  }

  // What the traffic has shown of the links so far.
  void measure() {
    if (meter_.read(clock_.now(), mesh_.readings()) || executor_.idle()) {
      events.push_back(LinksMeasured{meter_.links()});
      member_->measured(clock_.now(), meter_.links());
    }
  }

  // ---- what the mesh observes
  void on_segment(PeerId from, const transport::SegmentHeader& header, transport::ReadToken token,
                  transport::MutablePieces& target) override {
    executor_.segment(from, header, token, target);
  }

  void on_segment_end(PeerId from, const transport::SegmentHeader& header,
                      transport::ReadToken token, bool complete) override {
    executor_.segment_end(from, header, token, complete);
  }

  void on_message(PeerId from, ByteView body) override {
    const Result<protocol::Message> message = protocol::decode(body);
    if (!message.ok()) {
      events.push_back(Log{LogLevel::warning, "dropped a message of peer " + to_string(from) +
                                                  ": " + message.status().reason()});
      return;
    }
    if (!ended_) member_->receive_from(clock_.now(), from, message.value());
  }

  void on_room(PeerId to) override { executor_.pump(to); }
  void on_connections(PeerId, std::size_t) override {}

  void mesh_prepared(Epoch epoch, std::vector<PeerId> unreachable) override {
    if (ended_) return;
    measure();
    member_->prepared(clock_.now(), epoch, std::move(unreachable));
  }
  void mesh_broken(PeerId peer) override {
    if (!ended_) member_->channel_broken(clock_.now(), peer);
  }
  void mesh_note(std::string text) override {
    events.emplace_back(Log{LogLevel::debug, std::move(text)});
  }

  void mesh_restored(PeerId peer) override {
    if (!ended_) member_->channel_restored(clock_.now(), peer);
  }

  // ---- what the executor observes
  transport::Channel* channel(PeerId peer) override { return mesh_.channel(peer); }
  void operation_whole(OpId op) override { member_->whole(clock_.now(), op); }
  void operation_refused(OpKey op, Status why) override { member_->refuse(clock_.now(), op, why); }

  // ---- the coordinator
  void coordinator_connected() override {
    if (!ended_) member_->coordinator_connected(clock_.now());
  }
  void coordinator_disconnected(const Status&) override {
    if (!ended_) member_->coordinator_disconnected(clock_.now());
  }
  void coordinator_message(const protocol::Message& message) override {
    if (!ended_) member_->receive(clock_.now(), message);
  }

  PeerOptions options_;
  const Clock& clock_;
  Mesh mesh_;
  CoordinatorLink link_;
  Executor executor_;
  Publishing publishing_;
  std::optional<protocol::Member> member_;
  std::map<Ticket, OpKey> keys_;
  std::set<OpKey> released_;
  std::vector<OpKey> give_back_;
  WaitingCalls waiting_;
  std::optional<Ticket> update_;
  std::optional<Ticket> leave_;
  LinkMeter meter_;
  AgreedLinks links_;
  bool busy_ = false;  // there is work that waits for nobody
  bool ended_ = false;
  bool closed_ = false;
  Status end_reason_;
  std::optional<Time> idle_since_;
};

}  // namespace

Result<std::unique_ptr<Peer>> Peer::open(const PeerOptions& options, transport::Network& network,
                                         const Clock& clock) {
  PYCCL_ASSERT(options.segment_bytes > 0 && options.segment_bytes <= transport::segment_bytes_max);
  auto peer = std::make_unique<PeerImplementation>(options, network, clock);
  const Status started = peer->start();
  if (!started.ok()) return started;
  return std::unique_ptr<Peer>(std::move(peer));
}

}  // namespace pyccl::engine
