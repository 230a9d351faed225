// Pipes, their ends and the listeners; see network.hpp.
#include "transport/inproc/network.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "transport/life.hpp"

namespace pyccl::transport::inproc {

namespace {

// One direction of a stream: a ring of bytes.
struct Pipe {
  explicit Pipe(std::size_t capacity) : ring(capacity) {}

  std::size_t write(ByteView from) {
    const std::size_t count = std::min(from.size(), ring.size() - size);
    const std::size_t at = (begin + size) % ring.size();
    const std::size_t straight = std::min(count, ring.size() - at);
    std::copy_n(from.begin(), straight, ring.begin() + static_cast<std::ptrdiff_t>(at));
    std::copy_n(from.begin() + straight, count - straight, ring.begin());
    size += count;
    return count;
  }

  std::size_t read(MutableByteView to) {
    const std::size_t count = std::min(to.size(), size);
    const std::size_t straight = std::min(count, ring.size() - begin);
    std::copy_n(ring.begin() + static_cast<std::ptrdiff_t>(begin), straight, to.begin());
    std::copy_n(ring.begin(), count - straight, to.begin() + straight);
    begin = (begin + count) % ring.size();
    size -= count;
    return count;
  }

  Bytes ring;
  std::size_t begin = 0;
  std::size_t size = 0;
};

struct Link {
  explicit Link(std::size_t capacity) : pipes{Pipe(capacity), Pipe(capacity)} {}
  std::array<Pipe, 2> pipes;                // pipes[i] is written by end i
  std::array<bool, 2> ended{false, false};  // no more writes
  std::array<bool, 2> closed{false, false};
};

}  // namespace

class InprocListener final : public Listener {
 public:
  InprocListener(InprocNetwork& network, std::string address, AcceptObserver* observer)
      : network_(network), address_(std::move(address)), observer_(observer) {
    network_.listeners_.emplace(address_, this);
  }
  ~InprocListener() override { network_.listeners_.erase(address_); }
  std::string address() const override { return address_; }
  AcceptObserver* observer() const { return observer_; }

 private:
  InprocNetwork& network_;
  std::string address_;
  AcceptObserver* observer_;
};

class InprocStream final : public Stream {
 public:
  InprocStream(InprocNetwork& network, std::string remote, StreamObserver* observer,
               std::shared_ptr<Link> link = nullptr)
      : network_(network), remote_(std::move(remote)), observer_(observer), link_(std::move(link)) {
    network_.streams_.push_back(this);
  }
  ~InprocStream() override {
    close();
    auto& streams = network_.streams_;
    *std::find(streams.begin(), streams.end(), this) = nullptr;
  }

  void set_observer(StreamObserver* observer) override { observer_ = observer; }
  IoResult write(std::span<const ByteView> parts) override;
  IoResult read(std::span<const MutableByteView> parts) override;
  void watch_writable(bool on) override { wants_writable_ = on; }
  void watch_readable(bool on) override { wants_readable_ = on; }
  void end_writes() override;
  void close() override;
  void fail(Status reason) override;
  std::string remote_address() const override { return remote_; }
  bool same_host() const override { return true; }

  bool turn();

 private:
  void connect();
  Pipe& out() { return link_->pipes[end_]; }
  Pipe& in() { return link_->pipes[1 - end_]; }
  bool other_closed() const { return link_->closed[1 - end_]; }
  bool at_end() const { return link_->ended[1 - end_] && link_->pipes[1 - end_].size == 0; }

  InprocNetwork& network_;
  std::string remote_;
  StreamObserver* observer_;
  std::shared_ptr<Link> link_;  // null while connecting
  std::size_t end_ = 1;         // 0: the one that dialled
  bool closed_ = false;
  bool wants_readable_ = true;
  bool wants_writable_ = false;
  std::optional<Status> failure_;
  Life life_;
};

IoResult InprocStream::write(std::span<const ByteView> parts) {
  if (closed_ || link_ == nullptr) return {0, Status(Code::closed, "the stream is not open")};
  if (other_closed()) return {0, Status(Code::io, "reset by the other side")};
  if (link_->ended[end_]) return {0, Status(Code::closed, "the stream takes no more")};
  IoResult result;
  for (const ByteView& part : parts) {
    const std::size_t count = out().write(part);
    result.bytes += count;
    if (count < part.size()) break;
  }
  return result;
}

IoResult InprocStream::read(std::span<const MutableByteView> parts) {
  if (closed_ || link_ == nullptr) return {0, Status(Code::closed, "the stream is not open")};
  if (at_end()) return {0, Status(Code::io, "closed by the other side")};
  IoResult result;
  for (const MutableByteView& part : parts) result.bytes += in().read(part);
  return result;
}

void InprocStream::end_writes() {
  if (link_ != nullptr) link_->ended[end_] = true;
}

void InprocStream::close() {
  closed_ = true;
  failure_.reset();
  if (link_ != nullptr) link_->closed[end_] = link_->ended[end_] = true;
}

void InprocStream::fail(Status reason) {
  close();
  failure_ = std::move(reason);
}

// Finds the listener and gives it the other end.
void InprocStream::connect() {
  const auto found = network_.listeners_.find(remote_);
  if (found == network_.listeners_.end()) {
    closed_ = true;
    observer_->on_failed({Code::io, "connecting to " + remote_ + ": refused"});
    return;
  }
  link_ = std::make_shared<Link>(network_.pipe_bytes_);
  end_ = 0;
  Life::Watch watch(life_);
  found->second->observer()->on_accepted(
      std::make_unique<InprocStream>(network_, "inproc:0", nullptr, link_));
  if (!watch.over() && !closed_) observer_->on_connected();
}

// True: an observer was called.
bool InprocStream::turn() {
  if (failure_) {
    Status status = std::move(*failure_);
    failure_.reset();
    if (observer_ != nullptr) observer_->on_failed(std::move(status));
    return true;
  }
  if (closed_) return false;
  if (link_ == nullptr) {
    connect();
    return true;
  }
  if (observer_ == nullptr) return false;
  Life::Watch watch(life_);
  bool called = false;
  if (wants_readable_ && (in().size > 0 || at_end())) {
    called = true;
    observer_->on_readable();
  }
  if (watch.over() || closed_) return called;
  if (wants_writable_ && !other_closed() && out().size < out().ring.size()) {
    called = true;
    observer_->on_writable();
  }
  return called;
}

std::unique_ptr<Stream> InprocNetwork::dial(const std::string& address, StreamObserver* observer) {
  return std::make_unique<InprocStream>(*this, address, observer);
}

Result<std::unique_ptr<Listener>> InprocNetwork::listen(const std::string& address,
                                                        AcceptObserver* observer) {
  std::string chosen = address;
  const std::size_t colon = chosen.rfind(':');
  if (colon == std::string::npos) {
    return Status(Code::invalid_argument, "'" + address + "' is not an address: no port");
  }
  if (chosen.substr(colon) == ":0") {
    chosen = chosen.substr(0, colon + 1) + std::to_string(++ports_);
  }
  if (listeners_.contains(chosen)) {
    return Status(Code::address_in_use, "address " + chosen + " is already in use");
  }
  return std::unique_ptr<Listener>(std::make_unique<InprocListener>(*this, chosen, observer));
}

bool InprocNetwork::pump() {
  bool called = false;
  const std::size_t count = streams_.size();  // who comes in this turn waits for the next one
  for (std::size_t i = 0; i < count; ++i) {
    if (streams_[i] != nullptr) called = streams_[i]->turn() || called;
  }
  std::erase(streams_, nullptr);
  return called;
}

}  // namespace pyccl::transport::inproc
