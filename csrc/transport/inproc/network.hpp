// Byte streams between ranks of one process: bounded pipes, moved by an explicit pump() in a fixed
// order, so that a test that uses them runs the same way each time.
//
// It stands for the real thing in tests and has its manners: writes are taken in part, a reader
// sees what was sent before the end, a dial that nobody answers is refused.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transport/network.hpp"

namespace pyccl::transport::inproc {

class InprocStream;
class InprocListener;

class InprocNetwork final : public Network {
 public:
  explicit InprocNetwork(std::size_t pipe_bytes = 256 * 1024) : pipe_bytes_(pipe_bytes) {}

  std::unique_ptr<Stream> dial(const std::string& address, StreamObserver* observer) override;
  // Any host will do; port 0 is replaced by an unused one.
  Result<std::unique_ptr<Listener>> listen(const std::string& address,
                                           AcceptObserver* observer) override;

  // Calls each observer that has something to do, once. False: nobody had.
  bool pump();

 private:
  friend class InprocStream;
  friend class InprocListener;

  std::size_t pipe_bytes_;
  std::uint32_t ports_ = 0;
  std::vector<InprocStream*> streams_;  // in the order of their birth; null: gone
  std::map<std::string, InprocListener*> listeners_;
};

}  // namespace pyccl::transport::inproc
