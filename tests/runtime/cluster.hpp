// A coordinator and peers in one process, over real sockets on the loopback.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "runtime/communicator.hpp"
#include "runtime/coordinator.hpp"

namespace pyccl::runtime {

// Far beyond what anything here takes: whoever waits so long has failed.
inline constexpr Duration patience = 20s;

inline std::unique_ptr<Coordinator> start_coordinator(CoordinatorSettings settings = {}) {
  if (settings.bind == CoordinatorSettings{}.bind) settings.bind = "127.0.0.1:0";
  auto started = Coordinator::start(settings);
  REQUIRE_MESSAGE(started.ok(), started.status().reason());
  return started.take();
}

inline std::unique_ptr<Communicator> open_peer(const std::string& coordinator) {
  ConnectOptions options;
  options.coordinator = coordinator;
  options.timeout = patience;
  auto opened = Communicator::open(options);
  REQUIRE_MESSAGE(opened.ok(), opened.status().reason());
  return opened.take();
}

inline Status ended(const WorkPtr& work) {
  REQUIRE(work->wait(patience));
  return work->status();
}

inline void require_ok(const WorkPtr& work) {
  const Status status = ended(work);
  REQUIRE_MESSAGE(status.ok(), status.reason());
}

class Cluster {
 public:
  explicit Cluster(std::size_t count) : Cluster(count, start_coordinator()) {}
  Cluster(std::size_t count, std::unique_ptr<Coordinator> its_coordinator)
      : coordinator(std::move(its_coordinator)) {
    peers.push_back(open_peer(coordinator->address()));
    require_ok(peers.front()->admission());  // else another might come first
    while (peers.size() < count) peers.push_back(open_peer(coordinator->address()));
    admit_all();
  }

  // Members update until everybody is one.
  void admit_all() {
    for (;;) {
      std::vector<Communicator*> members;
      for (const PeerId id : peers.front()->view().peers) {
        for (const auto& peer : peers) {
          if (peer->peer() == id) members.push_back(peer.get());
        }
      }
      for (Communicator* member : members) require_ok(member->admission());
      if (members.size() == peers.size()) return;
      std::vector<WorkPtr> updates;
      for (Communicator* member : members) updates.push_back(member->update(patience));
      for (const auto& update : updates) require_ok(update);
    }
  }

  std::unique_ptr<Coordinator> coordinator;
  std::vector<std::unique_ptr<Communicator>> peers;
};

inline engine::Request sum_of(std::vector<float>& values) {
  engine::Request request;
  auto* memory = reinterpret_cast<std::byte*>(values.data());
  request.arrays.push_back({memory, memory, kernels::DataType::f32, values.size(), values.size()});
  return request;
}

inline engine::Request barrier_of(std::uint32_t tag) {
  engine::Request request;
  request.kind = collectives::Kind::barrier;
  request.tag = tag;
  return request;
}

}  // namespace pyccl::runtime
