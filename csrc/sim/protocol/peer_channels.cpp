// Channels between peers: dialling, several connections each, what breaks and comes back.
#include <algorithm>
#include <cstdlib>
#include <utility>

#include "sim/protocol/peer_node.hpp"
#include "sim/protocol/world.hpp"

namespace pyccl::sim {

using namespace protocol;

void PeerChannel::send(Prng& prng, const PayloadPointer& payload) {
  if (lanes.empty()) return;
  Lane& lane = lanes[prng.below(lanes.size())];
  while (!lane.sent.empty() && *lane.sent.front().arrived) lane.sent.pop_front();
  lane.sent.push_back({payload, lane.connection->send(lane.end, payload)});
}

bool PeerChannel::lane_broken(Prng& prng, const Connection* connection) {
  const auto found = std::ranges::find_if(
      lanes, [&](const Lane& lane) { return lane.connection.get() == connection; });
  if (found == lanes.end()) return false;
  const Lane lane = std::move(*found);
  lanes.erase(found);
  for (const Sent& sent : lane.sent) {
    // Whether something arrived is not known for the last of them, so it may go twice.
    if (!*sent.arrived || prng.chance(1, 4)) send(prng, sent.payload);
  }
  return lanes.empty();
}

bool PeerNode::has_channel(PeerId peer) const {
  const auto found = channels_.find(peer);
  return found != channels_.end() && !found->second.lanes.empty();
}

void PeerNode::send_to_peer(PeerId to, const PayloadPointer& payload) {
  if (const auto found = channels_.find(to); found != channels_.end()) {
    found->second.send(world_.network.prng(), payload);
  }
}

void PeerNode::connect_to(const ConnectTo& wanted) {
  preparing_ = wanted;
  for (const MemberInfo& member : wanted.members) {
    wanted_[member.peer] = std::atoi(member.addresses.front().c_str() + 1);
    if (!has_channel(member.peer)) dial_peer(member.peer, Duration(0));
  }
  world_.clock.after(world_.timing.prepare_limit / 2,
                     guarded([epoch = wanted.epoch](PeerNode& self) {
                       if (self.preparing_ && self.preparing_->epoch == epoch) {
                         self.answer_prepared(true);
                       }
                     }));
  answer_prepared(false);
}

void PeerNode::answer_prepared(bool final) {
  if (!preparing_) return;
  std::vector<PeerId> unreachable;
  for (const MemberInfo& member : preparing_->members) {
    if (!has_channel(member.peer)) unreachable.push_back(member.peer);
  }
  if (!final && !unreachable.empty()) return;
  const Epoch epoch = preparing_->epoch;
  preparing_.reset();
  member_.prepared(world_.clock.now(), epoch, std::move(unreachable));
  drain();
}

void PeerNode::adopt(const View& view) {
  wanted_.clear();
  for (const MemberInfo& member : view.members) {
    if (member.peer == id_) continue;
    wanted_[member.peer] = std::atoi(member.addresses.front().c_str() + 1);
  }
  preparing_.reset();
  for (auto at = channels_.begin(); at != channels_.end();) {
    if (wanted_.contains(at->first)) {
      ++at;
      continue;
    }
    for (auto& lane : at->second.lanes) lane.connection->close(lane.end);
    at = channels_.erase(at);
  }
  for (const auto& [peer, machine] : wanted_) {
    if (has_channel(peer)) continue;
    member_.channel_broken(world_.clock.now(), peer);
    dial_peer(peer, Duration(0));
  }
}

// The one with the lower id dials at once, the other only if that does not help.
void PeerNode::dial_peer(PeerId peer, Duration delay) {
  PeerChannel& channel = channels_[peer];
  if (channel.dialling) return;
  channel.dialling = true;
  if (id_ > peer) delay += std::chrono::milliseconds(250);
  world_.clock.after(
      delay, guarded([peer](PeerNode& self) {
        const auto found = self.channels_.find(peer);
        if (found == self.channels_.end()) return;
        found->second.dialling = false;
        const auto target = self.wanted_.find(peer);
        const auto lanes = static_cast<std::size_t>(self.world_.swarm.lanes);
        if (target == self.wanted_.end() || found->second.lanes.size() >= lanes) return;
        found->second.dialling = true;
        std::weak_ptr<PeerNode> weak = self.weak_from_this();
        self.world_.network.dial(
            self.machine_, self.id_, target->second, peer,
            [weak, peer](Network::DialResult, std::shared_ptr<Connection> connection) {
              auto one = weak.lock();
              if (!one || !one->alive()) {
                if (connection) connection->abort(0, true, Duration(0));
                return;
              }
              one->process_.run([weak, peer, connection] {
                auto again = weak.lock();
                if (!again) return;
                const auto channel_at = again->channels_.find(peer);
                if (channel_at == again->channels_.end()) {
                  if (connection) connection->close(0);
                  return;
                }
                channel_at->second.dialling = false;
                if (connection) again->lane_up(peer, connection, 0);
                again->dial_peer(peer, connection ? Duration(0) : Duration(300ms));
              });
            });
      }));
}

bool PeerNode::accept_lane(const std::shared_ptr<Connection>& connection, PeerId dialler,
                           PeerId wanted) {
  if (!alive() || wanted != id_ || dialler == id_) return false;
  process_.run([weak = weak_from_this(), dialler, connection] {
    if (auto self = weak.lock()) self->lane_up(dialler, connection, 1);
  });
  return true;
}

void PeerNode::lane_up(PeerId peer, std::shared_ptr<Connection> connection, int end) {
  if (!connection->is_open(end)) return;
  connection->fifo_only = false;
  const std::weak_ptr<PeerNode> weak = weak_from_this();
  const Connection* key = connection.get();
  ConnectionEnd callbacks;
  callbacks.receive = [weak, peer](const PayloadPointer& payload) {
    auto self = weak.lock();
    if (!self) return;
    self->process_.run([weak, peer, payload] {
      if (auto one = weak.lock()) one->receive_from_peer(peer, payload);
    });
  };
  callbacks.broken = [weak, peer, key] {
    auto self = weak.lock();
    if (!self) return;
    self->process_.run([weak, peer, key] {
      if (auto one = weak.lock()) one->lane_broken(peer, key);
    });
  };
  connection->attach(end, std::move(callbacks));
  PeerChannel& channel = channels_[peer];
  const bool first = channel.lanes.empty();
  channel.lanes.push_back({std::move(connection), end, {}});
  if (first) {
    member_.channel_restored(world_.clock.now(), peer);
    for (const auto& [op, exchange] : exchanges_) {
      if (exchange.posted.contains(peer)) send_pieces(exchange, peer);
    }
  }
  drain();
  answer_prepared(false);
}

void PeerNode::lane_broken(PeerId peer, const Connection* connection) {
  const auto found = channels_.find(peer);
  if (found == channels_.end()) return;
  if (found->second.lane_broken(world_.network.prng(), connection)) {
    member_.channel_broken(world_.clock.now(), peer);
  }
  if (wanted_.contains(peer)) dial_peer(peer, std::chrono::milliseconds(50));
  drain();
}

void PeerNode::receive_from_peer(PeerId from, const PayloadPointer& payload) {
  if (const auto* message = std::get_if<Message>(&*payload)) {
    world_.say_message(name_ + " <- ", from, *message);
    member_.receive_from(world_.clock.now(), from, *message);
  } else if (const auto* piece = std::get_if<Contribution>(&*payload)) {
    receive_piece(from, *piece);
  } else if (const auto* receipt = std::get_if<Receipt>(&*payload)) {
    receive_receipt(from, *receipt);
  }
  drain();
}

}  // namespace pyccl::sim
