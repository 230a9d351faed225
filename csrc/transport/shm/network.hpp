// A network that also knows how to meet processes through shared memory; its streams by address are
// those of another one.
#pragma once

#include <memory>
#include <string>

#include "base/prng.hpp"
#include "transport/network.hpp"
#include "transport/poller.hpp"
#include "transport/shared_memory.hpp"
#include "transport/shm/region.hpp"
#include "transport/shm/stream.hpp"

namespace pyccl::transport::shm {

struct ShmOptions {
  std::uint64_t seed = 0;               // different in each process: two nonces must not meet
  std::size_t ring_bytes = 256 * 1024;  // of each direction; a power of two
  // Of all rings together. With many streams those to come get smaller ones, though not smaller
  // than a sixteenth.
  std::size_t rings_bytes = 16 << 20;
  // Payloads from this size on go by reference where the system allows it, so many bytes at once.
  std::size_t lend_bytes_min = 16 * 1024;
  std::size_t lend_window = 4 << 20;
  bool borrow = true;  // take them so; else all that comes has to come through the ring
};

class ShmNetwork final : public Network, private SharedMemory {
 public:
  // Poller and `outer` outlive this and all that comes from it.
  ShmNetwork(Poller& poller, Network& outer, const ShmOptions& options);

  std::unique_ptr<Stream> dial(const std::string& address, StreamObserver* observer) override {
    return outer_.dial(address, observer);
  }
  Result<std::unique_ptr<Listener>> listen(const std::string& address,
                                           AcceptObserver* observer) override {
    return outer_.listen(address, observer);
  }
  SharedMemory* shared_memory() override { return this; }

 private:
  Result<std::unique_ptr<MemoryOffer>> offer(const std::string& remote) override;
  Result<MemoryAnswer> accept(const std::string& offer, const std::string& remote) override;
  std::size_t ring_bytes() const;
  Nonce draw() { return {prng_.next(), prng_.next()}; }
  Terms terms() const { return {options_.lend_bytes_min, options_.lend_window, mark_}; }

  Poller& poller_;
  Network& outer_;
  ShmOptions options_;
  Prng prng_;
  std::shared_ptr<const Mark> mark_;
};

}  // namespace pyccl::transport::shm
