// The parts that all suites share; see conformance.hpp.
#include "transport/conformance.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace pyccl::transport::test {

namespace {

constexpr Duration patience = 30s;

}  // namespace

bool run_until(Harness& harness, const std::function<bool()>& done) {
  const Time give_up = harness.now() + patience;
  while (!done()) {
    if (harness.now() > give_up) return false;
    harness.step(harness.now() + 20ms);
  }
  return true;
}

void settle(Harness& harness) {
  const Time until = harness.now() + 50ms;
  while (harness.now() < until) harness.step(until);
}

Bytes pattern(std::size_t size, std::uint64_t seed) {
  Bytes bytes(size);
  Prng prng(seed);
  for (std::size_t i = 0; i < size; i += 8) {
    const std::uint64_t word = prng.next();
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, size - i));
  }
  return bytes;
}

bool same_bytes(ByteView left, ByteView right) {
  if (left.size() != right.size()) return false;
  return left.empty() || std::memcmp(left.data(), right.data(), left.size()) == 0;
}

void StreamEnd::dial(Harness& harness, const std::string& address) {
  stream = harness.network().dial(address, this);
}

void StreamEnd::attach(std::unique_ptr<Stream> accepted) {
  stream = std::move(accepted);
  stream->set_observer(this);
  connected = true;
}

void StreamEnd::on_connected() {
  CHECK(!connected);
  connected = true;
  if (when_connected) when_connected();
}

void StreamEnd::on_readable() {
  ++readable_calls;
  if (when_readable) return when_readable();
  // Two pieces, so that scattering is exercised everywhere; kept, since a call may bring one byte.
  first_.resize(std::max<std::size_t>(read_step / 3, 1));
  second_.resize(read_step - std::min(read_step, first_.size()));
  const std::array<MutableByteView, 2> parts{MutableByteView(first_), MutableByteView(second_)};
  const IoResult result = stream->read(parts);
  REQUIRE(result.bytes <= first_.size() + second_.size());
  const std::size_t in_first = std::min(result.bytes, first_.size());
  received.insert(received.end(), first_.begin(), first_.begin() + std::ptrdiff_t(in_first));
  received.insert(received.end(), second_.begin(),
                  second_.begin() + std::ptrdiff_t(result.bytes - in_first));
  if (result.status.ok()) return;
  end = result.status;
  stream->close();
}

void StreamEnd::on_writable() {
  if (when_writable) return when_writable();
  while (sent_ < to_send_.size()) {
    const std::size_t left = to_send_.size() - sent_;
    const ByteView rest = ByteView(to_send_).subspan(sent_);
    const std::array<ByteView, 3> parts{rest.first(left / 5), rest.subspan(left / 5, left / 7),
                                        rest.subspan(left / 5 + left / 7)};
    const IoResult result = stream->write(parts);
    sent_ += result.bytes;
    if (result.bytes == 0) break;
  }
  stream->watch_writable(sent_ < to_send_.size());
}

void StreamEnd::on_failed(Status status) {
  CHECK(!ended());
  CHECK(!status.ok());
  end = status;
  failed = true;
  if (when_failed) when_failed();
}

void StreamEnd::send(Bytes bytes) {
  to_send_.insert(to_send_.end(), bytes.begin(), bytes.end());
  stream->watch_writable(true);
}

Acceptor::Acceptor(Harness& harness, const std::string& address) {
  auto result = harness.network().listen(address, this);
  REQUIRE_MESSAGE(result.ok(), result.status().reason());
  listener = result.take();
}

void Acceptor::on_accepted(std::unique_ptr<Stream> stream) {
  REQUIRE(stream != nullptr);
  if (when_accepted) return when_accepted(std::move(stream));
  ends.push_back(std::make_unique<StreamEnd>(std::move(stream)));
}

}  // namespace pyccl::transport::test
