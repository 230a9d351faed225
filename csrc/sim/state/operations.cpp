// See operations.hpp; what an operation does to its memory is in movement.cpp.
#include "sim/state/operations.hpp"

#include <algorithm>

#include "engine/call.hpp"
#include "engine/layout.hpp"
#include "sim/state/movement.hpp"
#include "sim/state/world.hpp"

namespace pyccl::sim {
namespace {

constexpr std::uint32_t segment_bytes = 4096;

}  // namespace

std::string StateOperations::name(const Operation& operation) const {
  return "#" + std::to_string(operation.number);
}

Rank StateOperations::rank_of(PeerId peer) const {
  const auto found = std::ranges::find(view_.peers, peer);
  return found == view_.peers.end() ? -1 : static_cast<Rank>(found - view_.peers.begin());
}

void StateOperations::gather(const std::vector<StateMember*>& members) {
  ++view_.number;
  view_.peers.clear();
  operations_.clear();
  dead_.clear();
  members_.clear();
  for (StateMember* member : members) {
    view_.peers.push_back(member->peer());
    members_[member->peer()] = member;
  }
  for (StateMember* member : members) member->see(view_);
}

void StateOperations::post(StateMember& member, engine::Request request) {
  const std::uint64_t number = member.next_number++;
  auto& slot = operations_[number];
  if (!slot) slot = std::make_unique<Operation>();
  Operation& operation = *slot;
  operation.number = number;
  world_.say(member.name() + " posts " + name(operation) + ", " +
             std::string(collectives::name_of(request.kind)));
  world_.trace.fold(number << 8 | static_cast<std::uint64_t>(request.kind));
  if (operation.kind && *operation.kind != request.kind) {
    return world_.fail("lockstep",
                       member.name() + " posts another kind than others as " + name(operation));
  }
  if (const Status status = engine::check(request); !status.ok()) {
    return world_.fail("request", member.name() + ", " + name(operation) + ": " + status.reason());
  }
  const bool first = !operation.kind;
  operation.kind = request.kind;
  Post& post = operation.posts[member.peer()];
  post.member = &member;
  post.ranks = member.view().peers;
  const PeerId root = engine::root_of(request, post.ranks);
  const engine::Operation described(1, request, root, root == member.peer(), segment_bytes,
                                    world_.clock.now(), pools_);
  post.descriptor = described.descriptor();
  post.request = std::move(request);
  if (operation.outcome) return tell(operation, member);
  if (first && world_.layer.chance(world_.swarm.failure_permille, 1000)) {
    const bool late = world_.layer.chance(1, 2);
    disturbed_ = true;
    refuse(operation, late ? Status(Code::timeout, name(operation) + " takes too long")
                           : Status(Code::cancelled, name(operation) + " is cancelled"));
  }
  if (member.view().number == view_.number) start(operation, post);
}

// As Member::may_start and Operation::begin have it.
Status StateOperations::may_start(Post& post) const {
  const PeerId root = post.descriptor.root_peer;
  const auto gone = [](PeerId peer) {
    return Status(Code::peer_lost, "peer " + to_string(peer) + " is not in the view any more",
                  peer);
  };
  if (root) {
    post.request.root = rank_of(root);
    if (post.request.root < 0) return gone(root);
  }
  if (post.descriptor.uneven && post.ranks != view_.peers) {
    for (PeerId peer : post.ranks) {
      if (rank_of(peer) < 0) return gone(peer);
    }
  }
  const auto world = static_cast<Rank>(view_.peers.size());
  const bool changed = post.request.world != world;
  if (changed && engine::cut_by_rank(post.request)) {
    return {Code::peer_lost, "the members have changed since the call"};
  }
  const Status fit = engine::fits(post.request, rank_of(post.member->peer()), world);
  if (fit.ok() || !changed) return fit;
  return {Code::peer_lost, "the members have changed since the call: " + fit.reason()};
}

void StateOperations::start(Operation& operation, Post& post) {
  if (operation.outcome || post.started) return;
  if (Status status = may_start(post); !status.ok()) {
    if (status.code() != Code::peer_lost) {
      return world_.fail("request",
                         post.member->name() + ", " + name(operation) + ": " + status.reason());
    }
    return refuse(operation, std::move(status));
  }
  post.started = true;
  for (const auto& [peer, other] : operation.posts) {
    if (other.started && !alike(operation, post, other)) return;
  }
  const auto started = [&](PeerId peer) {
    const auto found = operation.posts.find(peer);
    return found != operation.posts.end() && found->second.started;
  };
  if (std::ranges::all_of(view_.peers, started)) all_started(operation);
}

// What the engine compares before any data is believed.
bool StateOperations::alike(const Operation& operation, const Post& a, const Post& b) {
  const std::string both =
      a.member->name() + " and " + b.member->name() + ", " + name(operation) + ": ";
  if (a.descriptor != b.descriptor) {
    world_.fail("lockstep", both + to_string(a.descriptor) + " and " + to_string(b.descriptor));
    return false;
  }
  if (!a.descriptor.uneven) return true;
  const auto at_a = static_cast<std::size_t>(rank_of(a.member->peer()));
  const auto at_b = static_cast<std::size_t>(rank_of(b.member->peer()));
  if (a.request.send_shares[at_b] == b.request.receive_shares[at_a] &&
      a.request.receive_shares[at_b] == b.request.send_shares[at_a]) {
    return true;
  }
  world_.fail("lockstep", both + "they expect other amounts of each other");
  return false;
}

void StateOperations::all_started(Operation& operation) {
  const std::uint64_t number = view_.number;
  world_.later(1, [this, &operation, number] {
    if (operation.outcome || view_.number != number) return;
    // What the dead have not sent yet never comes; the end of the view settles it.
    if (!dead_.empty() && world_.layer.chance(1, 2)) return;
    move(operation);
    operation.moved = true;
    world_.later(1, [this, &operation, number] {
      if (!operation.outcome && view_.number == number) decide(operation, {});
    });
  });
}

void StateOperations::refuse(Operation& operation, Status status) {
  world_.later(1, [this, &operation, status = std::move(status)] {
    if (!operation.outcome) decide(operation, status);
  });
}

void StateOperations::died(StateMember& member) {
  if (rank_of(member.peer()) < 0) return;
  dead_.insert(member.peer());
  world_.later(3, [this] { freeze(); });
}

void StateOperations::freeze() {
  if (dead_.empty()) return;
  ++view_.number;
  ++world_.views;
  std::string loss;
  for (PeerId peer : dead_) loss += (loss.empty() ? "" : ", ") + to_string(peer) + " died";
  std::erase_if(view_.peers, [this](PeerId peer) { return dead_.contains(peer); });
  world_.say("view " + std::to_string(view_.number) + " of " + std::to_string(view_.peers.size()));
  for (const auto& [number, operation] : operations_) {
    if (operation->outcome) continue;
    std::erase_if(operation->posts, [this](const auto& post) {
      return dead_.contains(post.first) && !post.second.started;
    });
    const bool called = std::ranges::any_of(
        operation->posts, [this](const auto& post) { return rank_of(post.first) >= 0; });
    if (!called) {
      operation->posts.clear();
    } else if (operation->moved && world_.layer.chance(1, 2)) {
      decide(*operation, {});
    } else {
      decide(*operation, Status(Code::peer_lost, loss, *dead_.begin()));
    }
  }
  dead_.clear();
  for (PeerId peer : view_.peers) {
    StateMember& member = *members_.at(peer);
    world_.later(2, [this, &member, view = view_] {
      if (member.view().number >= view.number) return;
      member.see(view);
      see(member);
    });
  }
}

// What it has called since the view before ended.
void StateOperations::see(StateMember& member) {
  if (member.view().number != view_.number) return;
  for (const auto& [number, operation] : operations_) {
    const auto found = operation->posts.find(member.peer());
    if (found != operation->posts.end()) start(*operation, found->second);
  }
}

void StateOperations::decide(Operation& operation, const Status& status) {
  operation.outcome = status;
  ++(status.ok() ? committed_ : failed_);
  world_.say(name(operation) + (status.ok() ? " is committed" : " fails: " + status.reason()));
  world_.trace.fold(static_cast<std::uint64_t>(status.code()));
  if (!status.ok()) spoil(operation);
  for (const auto& [peer, post] : operation.posts) tell(operation, *post.member);
}

void StateOperations::tell(const Operation& operation, StateMember& member) {
  const engine::Request& request = operation.posts.at(member.peer()).request;
  const bool moves_blocks = request.kind == collectives::Kind::all_to_all;
  const std::uint64_t bytes = moves_blocks ? request.arrays.front().output_count : 0;
  world_.later(2, [&member, number = operation.number, status = *operation.outcome, bytes] {
    member.ended(number, status, bytes);
  });
}

std::vector<StateOperations::Post*> StateOperations::in_rank_order(Operation& operation) const {
  std::vector<Post*> posts;
  for (PeerId peer : view_.peers) posts.push_back(&operation.posts.at(peer));
  return posts;
}

void StateOperations::move(Operation& operation) {
  std::vector<const engine::Request*> requests;
  for (const Post* post : in_rank_order(operation)) requests.push_back(&post->request);
  move_bytes(requests);
}

// What has failed may have written anything to where its results should have come. In place they
// are its inputs as well, and those come back.
void StateOperations::spoil(Operation& operation) {
  for (auto& [peer, post] : operation.posts) {
    if (!post.member->alive() || !world_.layer.chance(1, 2)) continue;
    for (const engine::Array& array : post.request.arrays) {
      if (array.output == array.input) continue;
      for (std::uint64_t i = 0; i < array.output_count; ++i) {
        array.output[i] = static_cast<std::byte>(world_.layer.next());
      }
    }
  }
}

}  // namespace pyccl::sim
