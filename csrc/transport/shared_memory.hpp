// How two processes that have a connection find out that they share memory, and get a stream
// through it. One offers, in a text; the other one takes it up and answers, in another; then the
// first one makes sure. Addresses prove nothing here: each side has to find in memory what the
// other one has written there.
#pragma once

#include <memory>
#include <string>

#include "base/status.hpp"
#include "transport/network.hpp"

namespace pyccl::transport {

inline constexpr std::size_t memory_text_bytes_max = 256;  // of an offer or an answer

// Dropped, it is void, and a stream that the other side has made of it breaks.
class MemoryOffer {
 public:
  virtual ~MemoryOffer() = default;
  virtual const std::string& text() const = 0;
  virtual Result<std::unique_ptr<Stream>> complete(const std::string& answer) = 0;
};

struct MemoryAnswer {
  std::unique_ptr<Stream> stream;
  std::string text;
};

class SharedMemory {
 public:
  virtual ~SharedMemory() = default;
  // `remote`: what the stream is to say of its other side.
  virtual Result<std::unique_ptr<MemoryOffer>> offer(const std::string& remote) = 0;
  // The failure says why not; texts may come from anybody.
  virtual Result<MemoryAnswer> accept(const std::string& offer, const std::string& remote) = 0;
};

}  // namespace pyccl::transport
