// Which connections should exist, and what is done until they do.
#include "engine/mesh.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"

namespace pyccl::engine {
namespace {

constexpr Duration handshake_limit = 3s;
constexpr Duration second_dialler_delay = 300ms;
constexpr Duration backoff_first = 20ms;
constexpr Duration backoff_last = 1s;
// Until a peer that wants no more connections is asked again, since those that it counts may have
// been dead ones.
constexpr Duration limited_pause = 60s;
constexpr std::ptrdiff_t accepted_max = 512;  // half the descriptors that a process usually has

}  // namespace

Mesh::Mesh(const MeshOptions& options, transport::Network& network, const Clock& clock,
           MeshHost& host)
    : options_(options),
      network_(network),
      memory_(options.transport == transport::Choice::tcp ? nullptr : network.shared_memory()),
      clock_(clock),
      host_(host),
      prng_(options.seed) {}

Mesh::~Mesh() { close(Status(Code::closed, "the peer is gone")); }

Status Mesh::listen() {
  auto listener = network_.listen(options_.listen, this);
  if (!listener.ok()) return listener.status();
  listener_ = listener.take();
  return {};
}

void Mesh::add(const protocol::MemberInfo& info) {
  if (info.peer == options_.self) return;
  if (const auto known = remotes_.find(info.peer); known != remotes_.end()) {
    known->second.info = info;  // a joiner may have got other addresses while it waited
    return;
  }
  Remote& remote = remotes_[info.peer];
  remote.info = info;
  remote.backoff = backoff_first;
  if (memory_ == nullptr) remote.memory = Memory::separate;
  const bool first_dialler = options_.self > info.peer;
  remote.next_dial = clock_.now() + (first_dialler ? Duration(0) : second_dialler_delay);
}

void Mesh::connect(Epoch epoch, RunId run, const std::vector<protocol::MemberInfo>& members) {
  run_ = run;
  preparing_ = Preparing{epoch, {}, clock_.now() + options_.timing.prepare_limit * 3 / 5};
  for (const protocol::MemberInfo& member : members) {
    if (member.peer == options_.self) continue;
    preparing_->peers.push_back(member.peer);
    add(member);
  }
  settle_offers();
  tick();
  check_prepared(false);
}

void Mesh::install(const protocol::View& view) {
  run_ = view.run;
  preparing_.reset();
  for (auto it = remotes_.begin(); it != remotes_.end();) {
    if (view.find(it->first) != nullptr) {
      ++it;
      continue;
    }
    if (it->second.channel != nullptr) {
      it->second.channel->close(Status(Code::peer_lost, "not in the view", it->first));
      closing_.push_back(std::move(it->second.channel));
    }
    // Else their end would be counted for the peer if it comes back as a joiner.
    for (auto& handshake : handshakes_) {
      if (handshake->dialled() && handshake->link().to == it->first) handshake->give_up();
    }
    it = remotes_.erase(it);
  }
  for (const protocol::MemberInfo& member : view.members) add(member);
  settle_offers();
}

transport::Channel* Mesh::channel(PeerId peer) {
  const auto found = remotes_.find(peer);
  return found == remotes_.end() ? nullptr : found->second.channel.get();
}

bool Mesh::open(PeerId peer) const {
  const auto found = remotes_.find(peer);
  return found != remotes_.end() && found->second.connections > 0;
}

std::vector<LinkMeter::Reading> Mesh::readings() const {
  std::vector<LinkMeter::Reading> all;
  for (const auto& [peer, remote] : remotes_) {
    if (remote.channel == nullptr || remote.connections == 0) continue;
    if (remote.channel->same_host()) {
      all.push_back({peer, true, {}});
    } else if (const auto way = remote.channel->measurement()) {
      all.push_back({peer, false, *way});
    }
  }
  return all;
}

void Mesh::check_prepared(bool give_up) {
  if (!preparing_) return;
  std::vector<PeerId> missing;
  for (const PeerId peer : preparing_->peers) {
    if (!open(peer)) missing.push_back(peer);
  }
  if (!missing.empty() && !give_up) return;
  if (!missing.empty()) PYCCL_MARK("a peer of the next view can't be reached");
  const Epoch epoch = preparing_->epoch;
  preparing_.reset();
  host_.mesh_prepared(epoch, std::move(missing));
}

bool Mesh::wants_dial(const Remote& remote) const {
  if (remote.info.addresses.empty()) return false;
  // One by one: a volley would be refused but for one or two.
  if (remote.limited && remote.dialling > 0) return false;
  const bool first_dialler = options_.self > remote.info.peer;
  const bool several = first_dialler && remote.memory == Memory::separate;
  const std::size_t wanted = several ? options_.connections : 1;
  return remote.connections + remote.dialling < wanted;
}

void Mesh::dial(Remote& remote) {
  const std::string& address =
      remote.info.addresses[remote.next_address % remote.info.addresses.size()];
  ++remote.dialling;
  protocol::Link link;
  link.run = run_;
  link.from = options_.self;
  link.to = remote.info.peer;
  handshakes_.push_back(std::make_unique<Handshake>(
      handshake_host(), network_, address, link, clock_.now() + handshake_limit,
      remote.memory == Memory::separate ? nullptr : memory_));
}

void Mesh::tick() {
  if (closed_) return;
  const Time now = clock_.now();
  // By index: giving up tells this mesh, which must not find a half-finished loop.
  for (std::size_t i = 0; i < handshakes_.size(); ++i) {
    Handshake& handshake = *handshakes_[i];
    if (handshake.over() || handshake.deadline() > now) continue;
    handshake.give_up();
    if (handshake.dialled()) link_ended(handshake, Status(Code::timeout, "no answer"));
  }
  sweep();
  for (auto& [peer, remote] : remotes_) {
    if (remote.channel != nullptr) remote.channel->tick(now);
    while (remote.next_dial <= now && wants_dial(remote)) dial(remote);
  }
  if (preparing_ && preparing_->deadline <= now) check_prepared(true);
}

std::optional<Time> Mesh::next_deadline() const {
  std::optional<Time> next;
  if (closed_) return next;
  for (const auto& handshake : handshakes_) {
    if (!handshake->over()) next = earlier(next, handshake->deadline());
  }
  for (const auto& [peer, remote] : remotes_) {
    if (remote.channel != nullptr) next = earlier(next, remote.channel->next_deadline());
    if (wants_dial(remote)) next = earlier(next, remote.next_dial);
  }
  if (preparing_) next = earlier(next, preparing_->deadline);
  return next;
}

void Mesh::flush() {
  for (auto& [peer, remote] : remotes_) {
    if (remote.channel != nullptr) remote.channel->flush();
  }
  sweep();
}

void Mesh::sweep() {
  std::erase_if(handshakes_, [](const auto& handshake) { return handshake->over(); });
  closing_.clear();
}

void Mesh::close(const Status& reason) {
  closed_ = true;
  listener_.reset();
  for (auto& handshake : handshakes_) handshake->give_up();
  for (auto& [peer, remote] : remotes_) {
    if (remote.channel == nullptr) continue;
    remote.channel->close(reason);
    closing_.push_back(std::move(remote.channel));
  }
  remotes_.clear();
}

void Mesh::on_accepted(std::unique_ptr<transport::Stream> stream) {
  if (closed_) return;
  // Strangers cost a bounded number of connections for a bounded time. The one that has been silent
  // for longest makes room, though not in the turn that it has come in: nobody could have read what
  // it says.
  const Time deadline = clock_.now() + handshake_limit;
  const auto waits = [](const auto& handshake) {
    return !handshake->over() && !handshake->dialled();
  };
  if (std::ranges::count_if(handshakes_, waits) >= accepted_max) {
    const auto silent = std::ranges::find_if(handshakes_, [&](const auto& handshake) {
      return waits(handshake) && handshake->link().to != options_.self &&
             handshake->deadline() < deadline;
    });
    if (silent == handshakes_.end()) return;
    (*silent)->give_up();
  }
  handshakes_.push_back(std::make_unique<Handshake>(handshake_host(), std::move(stream), deadline));
}

void Mesh::link_offered(Handshake& handshake, const protocol::Link& link) {
  if (link.version != protocol::version) {
    handshake.refuse(Status(Code::protocol_violation,
                            "this peer speaks version " + std::to_string(protocol::version)));
  } else if (link.to != options_.self) {
    PYCCL_MARK("a link meant for a former owner of the port");
    handshake.refuse(Status(Code::peer_lost, "another process listens here now", link.to));
  } else {
    settle_offers();
  }
}

void Mesh::settle_offers() {
  for (std::size_t i = 0; i < handshakes_.size(); ++i) {
    Handshake& handshake = *handshakes_[i];
    if (handshake.over() || handshake.dialled() || handshake.link().to != options_.self) continue;
    const protocol::Link& link = handshake.link();
    const auto remote = remotes_.find(link.from);
    // Whoever is not known yet may be a joiner that has heard of the next view before this peer;
    // the offer waits until its deadline.
    if (remote == remotes_.end()) continue;
    if (link.run != run_ && run_) {
      handshake.refuse(Status(Code::not_admitted, "another run"));
    } else if (remote->second.connections >= 2 * options_.connections) {
      handshake.refuse(Status(Code::limit_exceeded, "enough connections"));
    } else {
      accept(handshake);
    }
  }
}

void Mesh::accept(Handshake& handshake) {
  const PeerId peer = handshake.link().from;
  if (memory_ == nullptr) return adopt(peer, handshake.accept(), Memory::separate);
  std::string why;
  auto connection = handshake.accept(*memory_, why);
  const bool shared = handshake.through_memory();
  note(peer, shared ? "through shared memory" : "not through shared memory: " + why);
  adopt(peer, std::move(connection), shared ? Memory::shared : Memory::separate);
}

void Mesh::link_ended(Handshake& handshake, Status status) {
  if (closed_ || !handshake.dialled()) return;
  const auto found = remotes_.find(handshake.link().to);
  if (found == remotes_.end()) {
    handshake.give_up();
    return;
  }
  Remote& remote = found->second;
  PYCCL_ASSERT(remote.dialling > 0);
  --remote.dialling;
  const bool offered = handshake.offered_memory();
  if (status.ok()) {
    remote.backoff = backoff_first;
    const bool shared = handshake.through_memory();
    if (offered) {
      note(remote.info.peer, shared ? "through shared memory" : "it does not share memory");
    }
    adopt(remote.info.peer, handshake.take(), shared ? Memory::shared : Memory::separate);
    return;
  }
  if (handshake.memory_failed()) {
    note(remote.info.peer, "not through shared memory: " + status.reason());
    remote.memory = Memory::separate;
  }
  dial_later(remote, status.code());
}

void Mesh::dial_later(Remote& remote, Code why) {
  const bool limited = why == Code::limit_exceeded;
  if (limited) PYCCL_MARK("a peer takes no more connections");
  remote.limited = remote.limited || limited;
  if (!limited) ++remote.next_address;
  // Without any connection it goes on: those that the peer counts are dead, and it will notice.
  const bool content = limited && remote.connections + remote.dialling > 0;
  const Duration least = content ? limited_pause : remote.backoff;
  const auto spread = static_cast<std::uint64_t>(least.count()) / 2;
  remote.next_dial =
      clock_.now() + least + Duration(static_cast<std::int64_t>(prng_.below(spread + 1)));
  if (!content) remote.backoff = std::min(2 * remote.backoff, backoff_last);
}

void Mesh::adopt(PeerId peer, std::unique_ptr<transport::Connection> connection, Memory memory) {
  Remote& remote = remotes_.at(peer);
  remote.memory = memory;
  if (remote.channel == nullptr) {
    transport::ChannelOptions options;
    options.peer = peer;
    options.segment_bytes = options_.segment_bytes;
    remote.channel = transport::make_stream_channel(options, this);
  }
  remote.channel->adopt(std::move(connection));
  on_connections(peer, remote.channel->connections());  // a channel tells of losses only
}

void Mesh::on_connections(PeerId peer, std::size_t open) {
  const auto found = remotes_.find(peer);
  if (found == remotes_.end()) return;
  Remote& remote = found->second;
  const std::size_t before = std::exchange(remote.connections, open);
  if (open == 0 && remote.memory == Memory::shared) remote.memory = Memory::unknown;
  if (open < before) {
    // Not at once: if the peer is dying, its port is still open for a moment. But the pause of one
    // that had enough is over, since it takes another connection in the place of this one.
    const Time soon = clock_.now() + backoff_first;
    remote.next_dial = remote.limited ? soon : std::max(remote.next_dial, soon);
    if (open == 0 && options_.self < peer) remote.next_dial = clock_.now() + second_dialler_delay;
  }
  if (open == 0) {
    host_.mesh_broken(peer);
  } else if (before == 0) {
    host_.mesh_restored(peer);
    check_prepared(false);
  }
  host_.on_connections(peer, open);
}

void Mesh::note(PeerId peer, const std::string& what) {
  host_.mesh_note("link with " + to_string(peer) + ": " + what);
}

void Mesh::on_segment(PeerId from, const transport::SegmentHeader& header,
                      transport::ReadToken token, transport::MutablePieces& target) {
  host_.on_segment(from, header, token, target);
}

void Mesh::on_segment_end(PeerId from, const transport::SegmentHeader& header,
                          transport::ReadToken token, bool complete) {
  host_.on_segment_end(from, header, token, complete);
}

void Mesh::on_message(PeerId from, ByteView body) { host_.on_message(from, body); }

void Mesh::on_room(PeerId to) { host_.on_room(to); }

}  // namespace pyccl::engine
