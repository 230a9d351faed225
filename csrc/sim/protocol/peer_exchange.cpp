// The data of operations, as a model: each member's contribution goes to every other in pieces over
// any lane. A result is the set of what came, so data of the wrong peer, view or attempt shows.
#include "sim/protocol/peer_node.hpp"
#include "sim/protocol/world.hpp"

namespace pyccl::sim {

using namespace protocol;

const Exchange* PeerNode::exchange(OpKey op) const {
  const auto found = exchanges_.find(op);
  return found == exchanges_.end() ? nullptr : &found->second;
}

void PeerNode::begin(const StartOperation& start) {
  world_.checks.started(*this, start.op, start.attempt);
  Exchange& exchange = exchanges_[start.op.key];
  exchange = {start.op, member_.participants(start.op.key), {}, {}, {}, false};
  look_if_whole(exchange);
}

void PeerNode::peer_posted(const PeerPosted& posted) {
  const auto found = exchanges_.find(posted.op.key);
  if (found == exchanges_.end() || found->second.op != posted.op) {
    return world_.fail("exchange", name_ + " is told of " + to_string(posted.op) +
                                       " at a peer, but has not started it");
  }
  if (posted.weight != world_.weight_of(posted.peer, posted.op.key.tag)) {
    world_.fail("exchange", "a weight changed on its way");
  }
  found->second.posted.insert(posted.peer);
  send_pieces(found->second, posted.peer);
}

void PeerNode::send_pieces(const Exchange& exchange, PeerId to) {
  const auto receipts = exchange.receipts.find(to);
  for (std::uint32_t piece = 0; piece < static_cast<std::uint32_t>(world_.swarm.pieces); ++piece) {
    if (receipts != exchange.receipts.end() && receipts->second.contains(piece)) continue;
    const Contribution content{exchange.op, piece, world_.value_of(id_, exchange.op, piece)};
    send_to_peer(to, std::make_shared<const Payload>(content));
  }
}

void PeerNode::receive_piece(PeerId from, const Contribution& piece) {
  const auto found = exchanges_.find(piece.op.key);
  if (found == exchanges_.end() || found->second.op != piece.op) return;
  found->second.received[from][piece.piece] = piece.value;
  send_to_peer(from, std::make_shared<const Payload>(Receipt{piece.op, piece.piece}));
  look_if_whole(found->second);
}

void PeerNode::receive_receipt(PeerId from, const Receipt& receipt) {
  const auto found = exchanges_.find(receipt.op.key);
  if (found == exchanges_.end() || found->second.op != receipt.op) return;
  found->second.receipts[from].insert(receipt.piece);
  look_if_whole(found->second);
}

// Whole: has everybody's pieces, and everybody has its own. It takes a while to notice.
void PeerNode::look_if_whole(Exchange& exchange) {
  if (exchange.whole) return;
  const auto pieces = static_cast<std::size_t>(world_.swarm.pieces);
  for (PeerId peer : exchange.members) {
    if (peer == id_) continue;
    if (exchange.received[peer].size() < pieces) return;
    if (exchange.receipts[peer].size() < pieces) return;
  }
  exchange.whole = true;
  const OpId op = exchange.op;
  world_.clock.after(world_.work_time(), guarded([op](PeerNode& self) {
                       self.member_.whole(self.world_.clock.now(), op);
                       self.drain();
                     }));
}

}  // namespace pyccl::sim
