// Somebody who dials a port of ours and speaks another language, or none. It must harm nobody.
#pragma once

#include <memory>
#include <string>

#include "base/prng.hpp"
#include "sim/network.hpp"

namespace pyccl::sim {

class Stranger final : private transport::StreamObserver {
 public:
  Stranger(SimulatedNetwork& network, const std::string& address, Prng prng);

 private:
  void on_connected() override;
  void on_readable() override;
  void on_writable() override {}
  void on_failed(Status) override {}

  Prng prng_;
  std::unique_ptr<transport::Stream> stream_;
};

}  // namespace pyccl::sim
