// What every Network has to do, whatever it is made of: one suite, run over each of them.
//
// A harness is a Network with the loop that drives it. Suites wait for conditions, never for time:
// run_until gives up, and fails the test, only after far more turns than anything needs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/prng.hpp"
#include "base/time.hpp"
#include "transport/network.hpp"

namespace pyccl::transport::test {

class Harness {
 public:
  virtual ~Harness() = default;
  virtual Network& network() = 0;
  virtual std::string host() const = 0;  // "host:0" can be listened at
  virtual Time now() const = 0;
  virtual void step(Time deadline) = 0;  // one turn of the loop; false ends of waiting are fine
  virtual bool same_host() const { return true; }
  // Large payloads are there as soon as their headers are.
  virtual bool instant() const { return false; }
  // So many bytes that it can't take them in a few turns.
  virtual std::uint32_t large() const { return 1 << 20; }
};

using MakeHarness = std::function<std::unique_ptr<Harness>()>;

// Turns the loop until `done`; false if it never is.
bool run_until(Harness& harness, const std::function<bool()>& done);
// Turns the loop until nothing has happened for a while.
void settle(Harness& harness);

void stream_conformance(const MakeHarness& make);
void connection_conformance(const MakeHarness& make);
void channel_conformance(const MakeHarness& make);
void channel_fault_conformance(const MakeHarness& make);

// Bytes that tell where they belong.
Bytes pattern(std::size_t size, std::uint64_t seed);
// What == of two vectors says, at the speed of memcmp: under the thread sanitizer the comparison of
// one byte after the other took half of the time of the suites.
bool same_bytes(ByteView left, ByteView right);

// One end of a stream that gathers what it reads.
class StreamEnd final : public StreamObserver {
 public:
  StreamEnd() = default;
  explicit StreamEnd(std::unique_ptr<Stream> accepted) { attach(std::move(accepted)); }
  void dial(Harness& harness, const std::string& address);
  void attach(std::unique_ptr<Stream> accepted);

  void on_connected() override;
  void on_readable() override;
  void on_writable() override;
  void on_failed(Status status) override;

  // Writes all of it as room comes.
  void send(Bytes bytes);
  bool ended() const { return end.has_value(); }

  std::unique_ptr<Stream> stream;
  bool connected = false;
  std::size_t readable_calls = 0;
  std::size_t read_step = 64 * 1024;  // bytes per call
  Bytes received;
  std::optional<Status> end;  // from a read or from on_failed
  bool failed = false;        // by on_failed
  std::function<void()> when_connected;
  std::function<void()> when_readable;  // instead of reading
  std::function<void()> when_writable;  // instead of writing
  std::function<void()> when_failed;

 private:
  Bytes to_send_;
  std::size_t sent_ = 0;
  Bytes first_, second_;
};

// Accepts whatever comes.
class Acceptor final : public AcceptObserver {
 public:
  Acceptor(Harness& harness, const std::string& address);
  explicit Acceptor(Harness& harness) : Acceptor(harness, harness.host()) {}
  void on_accepted(std::unique_ptr<Stream> stream) override;
  std::string address() const { return listener->address(); }

  std::unique_ptr<Listener> listener;
  std::vector<std::unique_ptr<StreamEnd>> ends;
  std::function<void(std::unique_ptr<Stream>)> when_accepted;  // instead of keeping it
};

}  // namespace pyccl::transport::test
