// How fast a channel moves bytes between two processes over TCP on one host, both directions at
// once, as in an all-reduce of two peers: GB/s per direction by number of connections and segment
// size, and the processor time of one process, which other load on the machine disturbs less.
//
//   transports [--bytes N] [--repeats N] [--scratch]
//
// --scratch: segments arrive in a small buffer that is used again and again, as those that are
// reduced do; else each arrives at its place in a buffer of the whole size.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "runtime/reactor.hpp"
#include "transport/channel.hpp"
#include "transport/tcp/network.hpp"

namespace {

using namespace pyccl;
using namespace pyccl::transport;

struct Options {
  std::uint64_t bytes = 256u << 20;
  int repeats = 5;
  bool scratch = false;
};

struct Setting {
  std::size_t connections = 1;
  std::uint32_t segment_bytes = 0;
};

// One of the two processes. The one that listens also keeps the time.
class Side final : public ChannelObserver, public ConnectionObserver, public AcceptObserver {
 public:
  Side(const Options& options, const Setting& setting)
      : options_(options),
        setting_(setting),
        network_(reactor_),
        source_(options.bytes, std::byte{1}),
        target_(options.scratch ? setting.segment_bytes * 16 : options.bytes, std::byte{2}) {
    ChannelOptions channel_options;
    channel_options.peer = {1};
    channel_options.segment_bytes = setting.segment_bytes;
    channel_ = make_stream_channel(channel_options, this);
  }

  std::string listen() {
    auto result = network_.listen("127.0.0.1:0", this);
    if (!result.ok()) std::abort();
    listener_ = result.take();
    return listener_->address();
  }

  void dial(const std::string& address) {
    for (std::size_t i = 0; i < setting_.connections; ++i) {
      handshakes_.push_back(Connection::dial(network_, address, this));
    }
  }

  void wait_for_connections() {
    while (channel_->connections() < setting_.connections) turn();
  }

  // Sends and receives all bytes once; seconds.
  double transfer() {
    const auto begin = std::chrono::steady_clock::now();
    ++round_;
    sent_ = 0;
    received_ = std::exchange(early_, 0);
    fill();
    while (received_ < options_.bytes || sent_ < options_.bytes) turn();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    return took.count();
  }

  // Nobody begins the next round before the other has ended this one.
  void meet() {
    channel_->send_message(std::as_bytes(std::span("here")));
    ++meetings_;
    while (met_ < meetings_) turn();
  }

  // Leaves what is still to be written with the kernel.
  void drain() {
    for (int i = 0; i < 10; ++i) turn();
  }

 private:
  void turn() {
    channel_->flush();
    reactor_.run_once(reactor_.now() + 100ms);
    channel_->tick(reactor_.now());
  }

  void fill() {
    while (sent_ < options_.bytes && channel_->has_room()) {
      SegmentHeader header;
      header.op.key.seq = round_;
      header.offset = sent_;
      header.length = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(setting_.segment_bytes, options_.bytes - sent_));
      Pieces pieces;
      pieces.push(ByteView(source_).subspan(sent_, header.length));
      channel_->send_segment(header, pieces);
      sent_ += header.length;
    }
  }

  void on_segment(PeerId, const SegmentHeader& header, ReadToken token,
                  MutablePieces& target) override {
    const std::size_t at =
        options_.scratch ? token % 16 * setting_.segment_bytes : std::size_t(header.offset);
    target.push(MutableByteView(target_).subspan(at, header.length));
  }
  void on_segment_end(PeerId, const SegmentHeader& header, ReadToken, bool) override {
    (header.op.key.seq == round_ ? received_ : early_) += header.length;
  }
  void on_message(PeerId, ByteView) override { ++met_; }
  void on_room(PeerId) override { fill(); }
  void on_connections(PeerId, std::size_t) override {}

  void on_open(Connection& connection) override {
    connection.send_message(std::as_bytes(std::span("hello")));
  }
  void on_message(Connection& connection, ByteView) override {
    if (listener_ != nullptr) connection.send_message(std::as_bytes(std::span("welcome")));
    const auto found = std::find_if(handshakes_.begin(), handshakes_.end(),
                                    [&](const auto& held) { return held.get() == &connection; });
    auto held = std::move(*found);
    handshakes_.erase(found);
    channel_->adopt(std::move(held));
  }
  void on_closed(Connection&, Status) override { std::abort(); }
  void on_accepted(std::unique_ptr<Stream> stream) override {
    handshakes_.push_back(Connection::accepted(std::move(stream), this));
  }

  const Options& options_;
  const Setting& setting_;
  runtime::Reactor reactor_;
  tcp::TcpNetwork network_;
  Bytes source_;
  Bytes target_;
  std::unique_ptr<Channel> channel_;
  std::unique_ptr<Listener> listener_;
  std::vector<std::unique_ptr<Connection>> handshakes_;
  std::uint32_t round_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t early_ = 0;  // of the next round
  std::size_t meetings_ = 0;
  std::size_t met_ = 0;
};

double processor_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

[[noreturn]] void run_child(const Options& options, const Setting& setting, int address_pipe) {
  std::array<char, 64> address{};
  if (::read(address_pipe, address.data(), address.size() - 1) <= 0) std::_Exit(1);
  Side side(options, setting);
  side.dial(address.data());
  side.wait_for_connections();
  for (int i = 0; i <= options.repeats; ++i) {
    side.meet();
    (void)side.transfer();
  }
  side.meet();
  side.drain();
  std::_Exit(0);
}

void measure(const Options& options, const Setting& setting) {
  int address_pipe[2];
  if (::pipe(address_pipe) != 0) std::abort();
  const pid_t child = ::fork();
  if (child == 0) run_child(options, setting, address_pipe[0]);
  Side side(options, setting);
  const std::string address = side.listen();
  if (::write(address_pipe[1], address.data(), address.size()) < 0) std::abort();
  side.wait_for_connections();
  std::vector<double> seconds;
  std::vector<double> processor;
  for (int i = 0; i <= options.repeats; ++i) {
    side.meet();
    const double before = processor_seconds();
    const double took = side.transfer();
    if (i == 0) continue;  // the first one warms up
    seconds.push_back(took);
    processor.push_back(processor_seconds() - before);
  }
  side.meet();
  side.drain();
  ::waitpid(child, nullptr, 0);
  ::close(address_pipe[0]);
  ::close(address_pipe[1]);
  std::sort(seconds.begin(), seconds.end());
  std::sort(processor.begin(), processor.end());
  const double median = seconds[seconds.size() / 2];
  std::printf(
      "%2zu connections  %7u B segments  %6.2f GB/s per direction  %6.1f ms  (%.1f-%.1f)"
      "  processor %6.1f ms\n",
      setting.connections, setting.segment_bytes, static_cast<double>(options.bytes) / median / 1e9,
      median * 1e3, seconds.front() * 1e3, seconds.back() * 1e3,
      processor[processor.size() / 2] * 1e3);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const bool has_value = i + 1 < count;
    if (std::strcmp(arguments[i], "--scratch") == 0) {
      options.scratch = true;
    } else if (std::strcmp(arguments[i], "--bytes") == 0 && has_value) {
      options.bytes = std::strtoull(arguments[++i], nullptr, 10);
    } else if (std::strcmp(arguments[i], "--repeats") == 0 && has_value) {
      options.repeats = std::max(1, std::atoi(arguments[++i]));
    } else {
      std::fprintf(stderr, "usage: transports [--bytes N] [--repeats N] [--scratch]\n");
      return 2;
    }
  }
  for (const std::size_t connections : {1u, 2u, 4u}) {
    for (const std::uint32_t segment_bytes : {128u << 10, 256u << 10, 512u << 10, 1024u << 10}) {
      measure(options, {connections, segment_bytes});
    }
  }
  return 0;
}
