// The mesh and shared memory: peers that share it talk through it, and whatever goes wrong with
// that, they talk all the same.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/mesh.hpp"
#include "runtime/reactor.hpp"
#include "transport/shm/network.hpp"
#include "transport/tcp/network.hpp"

using namespace pyccl;
using namespace pyccl::engine;
using transport::Choice;

namespace {

constexpr PeerId dialler{9};
constexpr PeerId acceptor{5};

enum class Fault { none, no_offer, refused, not_found };

// Shared memory with whatever may be wrong with it.
class FaultyMemory final : public transport::Network, private transport::SharedMemory {
 public:
  FaultyMemory(runtime::Reactor& reactor, Fault fault, std::uint64_t seed)
      : tcp_(reactor), shm_(reactor, tcp_, {seed}), fault_(fault) {}

  std::unique_ptr<transport::Stream> dial(const std::string& address,
                                          transport::StreamObserver* observer) override {
    return tcp_.dial(address, observer);
  }
  Result<std::unique_ptr<transport::Listener>> listen(
      const std::string& address, transport::AcceptObserver* observer) override {
    return tcp_.listen(address, observer);
  }
  transport::SharedMemory* shared_memory() override { return this; }

 private:
  Result<std::unique_ptr<transport::MemoryOffer>> offer(const std::string& remote) override {
    if (fault_ == Fault::no_offer) return Status(Code::io, "none to be had");
    return shm_.shared_memory()->offer(remote);
  }
  Result<transport::MemoryAnswer> accept(const std::string& offer,
                                         const std::string& remote) override {
    if (fault_ == Fault::refused) return Status(Code::io, "not found here");
    auto answer = shm_.shared_memory()->accept(offer, remote);
    if (answer.ok() && fault_ == Fault::not_found) answer.value().text += "0";
    return answer;
  }

  transport::tcp::TcpNetwork tcp_;
  transport::shm::ShmNetwork shm_;
  Fault fault_;
};

class Host final : public MeshHost {
 public:
  void mesh_prepared(Epoch, std::vector<PeerId>) override {}
  void mesh_broken(PeerId) override { ++broken; }
  void mesh_restored(PeerId) override {}
  void mesh_note(std::string text) override { notes.push_back(std::move(text)); }
  void on_segment(PeerId, const transport::SegmentHeader&, transport::ReadToken,
                  transport::MutablePieces&) override {}
  void on_segment_end(PeerId, const transport::SegmentHeader&, transport::ReadToken,
                      bool) override {}
  void on_message(PeerId, ByteView) override { ++messages; }
  void on_room(PeerId) override {}
  void on_connections(PeerId, std::size_t) override {}

  bool noted(const std::string& what) const {
    return std::ranges::any_of(
        notes, [&](const std::string& note) { return note.find(what) != std::string::npos; });
  }

  std::vector<std::string> notes;
  int broken = 0;
  int messages = 0;
};

// Two peers, of which the first dials.
struct Pair {
  Pair(Choice first_choice, Choice second_choice, Fault first_fault = Fault::none,
       Fault second_fault = Fault::none)
      : first_network(reactor, first_fault, 1),
        second_network(reactor, second_fault, 2),
        first(options(dialler, first_choice), first_network, reactor, first_host),
        second(options(acceptor, second_choice), second_network, reactor, second_host) {
    REQUIRE(first.listen().ok());
    REQUIRE(second.listen().ok());
    first.connect({1, 2}, {7}, {{acceptor, "default", {}, {second.address()}}});
    second.connect({1, 2}, {7}, {{dialler, "default", {}, {first.address()}}});
  }

  static MeshOptions options(PeerId peer, Choice choice) {
    MeshOptions options;
    options.self = peer;
    options.listen = "127.0.0.1:0";
    options.connections = 4;
    options.segment_bytes = 1024;
    options.transport = choice;
    return options;
  }

  bool until(const std::function<bool()>& done) {
    const Time give_up = reactor.update_time() + 20s;
    while (!done()) {
      if (reactor.now() > give_up) return false;
      first.flush();
      second.flush();
      const auto due = earlier(first.next_deadline(), second.next_deadline());
      reactor.run_once(std::min(due.value_or(never), reactor.now() + 20ms));
      first.tick();
      second.tick();
    }
    return true;
  }

  std::size_t connections(Mesh& mesh, PeerId peer) {
    return mesh.channel(peer) == nullptr ? 0 : mesh.channel(peer)->connections();
  }
  bool connected(std::size_t wanted) {
    return connections(first, acceptor) == wanted && connections(second, dialler) == wanted;
  }
  // More would have come by now.
  bool settled(std::size_t wanted) {
    if (!until([&] { return connected(wanted); })) return false;
    const Time end = reactor.now() + 400ms;
    return until([&] { return reactor.now() >= end; }) && connected(wanted);
  }
  bool talk() {
    const int before = first_host.messages + second_host.messages;
    first.channel(acceptor)->send_message({});
    second.channel(dialler)->send_message({});
    return until([&] { return first_host.messages + second_host.messages == before + 2; });
  }

  runtime::Reactor reactor;
  FaultyMemory first_network;
  FaultyMemory second_network;
  Host first_host;
  Host second_host;
  Mesh first;
  Mesh second;
};

}  // namespace

TEST_CASE("peers of one host talk through shared memory, over one connection") {
  Pair pair(Choice::automatic, Choice::automatic);
  CHECK(pair.settled(1));
  CHECK(pair.first_host.noted("through shared memory"));
  CHECK(pair.second_host.noted("through shared memory"));
  CHECK(!pair.first_host.noted("not"));
  CHECK(pair.talk());
}

TEST_CASE("either side can forbid shared memory") {
  const std::pair<Choice, Choice> choices[] = {{Choice::tcp, Choice::automatic},
                                               {Choice::automatic, Choice::tcp},
                                               {Choice::tcp, Choice::tcp}};
  for (const auto& [left, right] : choices) {
    Pair pair(left, right);
    CHECK(pair.settled(4));
    CHECK(pair.talk());
    CHECK(pair.first_host.broken + pair.second_host.broken == 0);
  }
}

TEST_CASE("where the proof fails, peers talk over TCP") {
  SUBCASE("nothing to offer") {
    Pair pair(Choice::automatic, Choice::automatic, Fault::no_offer);
    CHECK(pair.settled(4));
    CHECK(pair.second_host.noted("it offers none"));
  }
  SUBCASE("not to be found by the other side") {
    Pair pair(Choice::automatic, Choice::automatic, Fault::none, Fault::refused);
    CHECK(pair.settled(4));
    CHECK(pair.first_host.noted("does not share memory"));
    CHECK(pair.second_host.noted("not through shared memory: not found here"));
    CHECK(pair.second_host.broken == 0);
  }
  SUBCASE("the answer is wrong") {
    Pair pair(Choice::automatic, Choice::automatic, Fault::none, Fault::not_found);
    CHECK(pair.settled(4));
    CHECK(pair.first_host.noted("the answer is not what the memory says"));
    CHECK(pair.talk());
  }
}

TEST_CASE("a connection through memory that has broken comes again") {
  Pair pair(Choice::automatic, Choice::automatic);
  REQUIRE(pair.settled(1));
  const std::size_t notes = pair.first_host.notes.size();
  // A view without the peer takes it away.
  protocol::View alone;
  alone.epoch = {1, 3};
  alone.run = {7};
  alone.members.push_back({dialler, "default", {}, {}});
  pair.first.install(alone);
  REQUIRE(pair.until([&] { return pair.second_host.broken == 1; }));
  pair.first.connect({1, 4}, {7}, {{acceptor, "default", {}, {pair.second.address()}}});
  CHECK(pair.settled(1));
  CHECK(pair.first_host.notes.size() > notes);
  CHECK(!pair.first_host.noted("not"));
  CHECK(pair.talk());
}
