// The meeting: an offer as the first bytes on a TCP stream, the answer as the next ones; each ends
// with a line break.
#include "transport/shm_harness.hpp"

#include <doctest/doctest.h>

#include <array>
#include <list>
#include <utility>

namespace pyccl::transport::test {

namespace {

void write_line(Stream& stream, const std::string& line) {
  const std::string text = line + "\n";
  const std::array<ByteView, 1> parts{std::as_bytes(std::span(text))};
  REQUIRE(stream.write(parts).bytes == text.size());
}

// True: the line is complete.
bool read_line(Stream& stream, std::string& line, Status& failure) {
  std::array<std::byte, 512> bytes;
  const std::array<MutableByteView, 1> parts{MutableByteView(bytes)};
  const IoResult result = stream.read(parts);
  failure = result.status;
  line.append(reinterpret_cast<const char*>(bytes.data()), result.bytes);
  if (line.empty() || line.back() != '\n') return false;
  line.pop_back();
  return true;
}

class Dialled final : public Stream, private StreamObserver {
 public:
  Dialled(Network& outer, SharedMemory& memory, const std::string& address,
          StreamObserver* observer)
      : memory_(memory), observer_(observer), inner_(outer.dial(address, this)) {}

  void set_observer(StreamObserver* observer) override {
    observer_ = observer;
    if (met_) inner_->set_observer(observer);
  }
  IoResult write(std::span<const ByteView> parts) override {
    return met_ ? inner_->write(parts) : IoResult{0, Status(Code::closed, "not open yet")};
  }
  IoResult read(std::span<const MutableByteView> parts) override {
    return met_ ? inner_->read(parts) : IoResult{0, Status(Code::closed, "not open yet")};
  }
  void watch_writable(bool on) override {
    if (met_) inner_->watch_writable(on);
  }
  void watch_readable(bool on) override {
    if (met_) inner_->watch_readable(on);
  }
  void end_writes() override { inner_->end_writes(); }
  void close() override { inner_->close(); }
  void fail(Status reason) override { inner_->fail(std::move(reason)); }
  std::string remote_address() const override { return inner_->remote_address(); }
  bool same_host() const override { return inner_->same_host(); }
  Lending* lending() override { return met_ ? inner_->lending() : nullptr; }

 private:
  void on_connected() override {
    auto offer = memory_.offer(inner_->remote_address());
    REQUIRE_MESSAGE(offer.ok(), offer.status().reason());
    offer_ = offer.take();
    write_line(*inner_, offer_->text());
  }
  void on_readable() override {
    Status failure;
    if (!read_line(*inner_, answer_, failure)) {
      if (failure.ok()) return;
      inner_->close();
      return observer_->on_failed(failure);
    }
    auto stream = offer_->complete(answer_);
    REQUIRE_MESSAGE(stream.ok(), stream.status().reason());
    inner_ = stream.take();
    offer_.reset();
    met_ = true;
    inner_->set_observer(observer_);
    observer_->on_connected();
  }
  void on_writable() override {}
  void on_failed(Status status) override { observer_->on_failed(std::move(status)); }

  SharedMemory& memory_;
  StreamObserver* observer_;
  std::unique_ptr<Stream> inner_;
  std::unique_ptr<MemoryOffer> offer_;
  std::string answer_;
  bool met_ = false;
};

// An accepted TCP stream until it has said what it offers, and then until the dialler closes it.
class Greeted final : public StreamObserver {
 public:
  Greeted(SharedMemory& memory, std::unique_ptr<Stream> stream, AcceptObserver* observer)
      : memory_(memory), stream_(std::move(stream)), observer_(observer) {
    stream_->set_observer(this);
  }
  bool over() const { return over_; }

 private:
  void on_connected() override {}
  void on_writable() override {}
  void on_failed(Status) override { over_ = true; }
  void on_readable() override {
    Status failure;
    if (!read_line(*stream_, offer_, failure)) {
      if (failure.ok()) return;
      stream_->close();
      over_ = true;
      return;
    }
    auto answer = memory_.accept(offer_, stream_->remote_address());
    if (!answer.ok()) {  // the dialler has given up
      stream_->close();
      over_ = true;
      return;
    }
    write_line(*stream_, answer.value().text);
    offer_.clear();
    observer_->on_accepted(std::move(answer.value().stream));
  }

  SharedMemory& memory_;
  std::unique_ptr<Stream> stream_;
  AcceptObserver* observer_;
  std::string offer_;
  bool over_ = false;
};

class Door final : public Listener, public AcceptObserver {
 public:
  Door(SharedMemory& memory, AcceptObserver* observer) : memory_(memory), observer_(observer) {}
  Status open(Network& outer, const std::string& address) {
    auto listener = outer.listen(address, this);
    if (!listener.ok()) return listener.status();
    listener_ = listener.take();
    return {};
  }
  std::string address() const override { return listener_->address(); }

 private:
  void on_accepted(std::unique_ptr<Stream> stream) override {
    greeted_.remove_if([](const Greeted& each) { return each.over(); });
    greeted_.emplace_back(memory_, std::move(stream), observer_);
  }

  SharedMemory& memory_;
  AcceptObserver* observer_;
  std::list<Greeted> greeted_;
  std::unique_ptr<Listener> listener_;
};

}  // namespace

std::unique_ptr<Stream> MeetingNetwork::dial(const std::string& address, StreamObserver* observer) {
  return std::make_unique<Dialled>(outer_, memory_, address, observer);
}

Result<std::unique_ptr<Listener>> MeetingNetwork::listen(const std::string& address,
                                                         AcceptObserver* observer) {
  auto door = std::make_unique<Door>(memory_, observer);
  if (Status status = door->open(outer_, address); !status.ok()) return status;
  return std::unique_ptr<Listener>(std::move(door));
}

}  // namespace pyccl::transport::test
