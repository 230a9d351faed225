// How fast a channel moves bytes between two processes of one host: over TCP, through a ring in
// shared memory, and by reference. Both directions at once, as in an all-reduce of two peers: GB/s
// per direction and the processor time of one process, which other load on the machine disturbs
// less. And how long a small segment takes there and back.
//
//   transports [--bytes N] [--repeats N] [--scratch] [--spin MICROSECONDS] [--lend BYTES]
//              [--only tcp|ring|reference]
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
#include <utility>
#include <vector>

#include "base/memory.hpp"
#include "runtime/reactor.hpp"
#include "transport/channel.hpp"
#include "transport/shm/network.hpp"
#include "transport/tcp/network.hpp"

namespace {

using namespace pyccl;
using namespace pyccl::transport;

enum class Kind { tcp, ring, reference };
constexpr std::array<const char*, 3> kind_names{"tcp", "ring", "reference"};

struct Options {
  std::uint64_t bytes = 256u << 20;
  int repeats = 5;
  bool scratch = false;
  Duration spin{};
  std::string only;
  std::size_t lend = 0;  // bytes from which on payloads go by reference; 0: as usual
};

struct Setting {
  Kind kind = Kind::tcp;
  std::size_t connections = 1;
  std::uint32_t segment_bytes = 0;
  std::uint64_t bytes = 0;  // of a transfer
};

ByteView text(const std::string& words) { return std::as_bytes(std::span(words)); }

// One of the two processes. The one that listens also keeps the time.
class Side final : public ChannelObserver, public ConnectionObserver, public AcceptObserver {
 public:
  Side(const Options& options, const Setting& setting)
      : options_(options),
        setting_(setting),
        tcp_(reactor_),
        shm_(reactor_, tcp_, memory_options(options, setting)),
        source_(std::max<std::size_t>(setting.bytes, setting.segment_bytes)),
        target_(options.scratch ? std::size_t{setting.segment_bytes} * 16 : source_.size()) {
    std::memset(source_.data(), 1, source_.size());
    std::memset(target_.data(), 2, target_.size());
    reactor_.spin_for(options.spin);
    ChannelOptions channel_options;
    channel_options.peer = {1};
    channel_options.segment_bytes = setting.segment_bytes;
    channel_ = make_stream_channel(channel_options, this);
  }

  std::string listen() {
    auto result = tcp_.listen("127.0.0.1:0", this);
    if (!result.ok()) std::abort();
    listener_ = result.take();
    return listener_->address();
  }

  void dial(const std::string& address) {
    for (std::size_t i = 0; i < setting_.connections; ++i) {
      handshakes_.push_back(Connection::dial(tcp_, address, this));
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
    while (received_ < setting_.bytes || sent_ < setting_.bytes) turn();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    return took.count();
  }

  // One segment there and one back, again and again; seconds of one.
  double ping_pong(bool first, int rounds) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < rounds; ++i) {
      if (first) send(0, setting_.segment_bytes);
      const std::uint64_t expected = ++pings_;
      while (pongs_ < expected) turn();
      if (!first) send(0, setting_.segment_bytes);
    }
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    return took.count() / rounds;
  }

  // Nobody begins the next round before the other has ended this one.
  void meet() {
    channel_->send_message(text("here"));
    ++meetings_;
    while (met_ < meetings_) turn();
  }

  // Leaves what is still to be written with the kernel.
  void drain() {
    for (int i = 0; i < 10; ++i) {
      channel_->flush();
      reactor_.run_once(reactor_.now() + 1ms);
    }
  }

 private:
  static shm::ShmOptions memory_options(const Options& options, const Setting& setting) {
    shm::ShmOptions memory;
    memory.seed = static_cast<std::uint64_t>(::getpid());
    memory.borrow = setting.kind == Kind::reference;
    if (options.lend > 0) memory.lend_bytes_min = options.lend;
    return memory;
  }

  void turn() {
    channel_->flush();
    reactor_.run_once(reactor_.now() + 100ms);
    channel_->tick(reactor_.now());
  }

  void send(std::uint64_t offset, std::uint32_t length) {
    SegmentHeader header;
    header.op.key.seq = round_;
    header.offset = offset;
    header.length = length;
    Pieces pieces;
    pieces.push({source_.data() + offset, length});
    channel_->send_segment(header, pieces);
  }

  void fill() {
    while (sent_ < setting_.bytes && channel_->has_room()) {
      const auto length = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(setting_.segment_bytes, setting_.bytes - sent_));
      send(sent_, length);
      sent_ += length;
    }
  }

  void on_segment(PeerId, const SegmentHeader& header, ReadToken token,
                  MutablePieces& target) override {
    const std::size_t at =
        options_.scratch ? token % 16 * setting_.segment_bytes : std::size_t(header.offset);
    target.push({target_.data() + at, header.length});
  }
  void on_segment_end(PeerId, const SegmentHeader& header, ReadToken, bool) override {
    (header.op.key.seq == round_ ? received_ : early_) += header.length;
    ++pongs_;
  }
  void on_message(PeerId, ByteView) override { ++met_; }
  void on_room(PeerId) override { fill(); }
  void on_connections(PeerId, std::size_t) override {}

  void on_open(Connection& connection) override {
    if (setting_.kind == Kind::tcp) return connection.send_message(text("hello"));
    offer_ = shm_.shared_memory()->offer("there").take();
    connection.send_message(text(offer_->text()));
  }
  void on_message(Connection& connection, ByteView body) override {
    const std::string words(reinterpret_cast<const char*>(body.data()), body.size());
    if (setting_.kind == Kind::tcp) {
      if (listener_ != nullptr) connection.send_message(text("welcome"));
      const auto found = std::find_if(handshakes_.begin(), handshakes_.end(),
                                      [&](const auto& held) { return held.get() == &connection; });
      auto held = std::move(*found);
      handshakes_.erase(found);
      return channel_->adopt(std::move(held));
    }
    std::unique_ptr<Stream> stream;
    if (listener_ != nullptr) {
      auto answer = shm_.shared_memory()->accept(words, "there").take();
      connection.send_message(text(answer.text));
      connection.flush();
      stream = std::move(answer.stream);
    } else {
      stream = offer_->complete(words).take();
    }
    channel_->adopt(Connection::accepted(std::move(stream), this));
  }
  // The one that two have met on is of no use any more.
  void on_closed(Connection&, Status) override {
    if (setting_.kind == Kind::tcp) std::abort();
  }
  void on_accepted(std::unique_ptr<Stream> stream) override {
    handshakes_.push_back(Connection::accepted(std::move(stream), this));
  }

  const Options& options_;
  const Setting& setting_;
  runtime::Reactor reactor_;
  tcp::TcpNetwork tcp_;
  shm::ShmNetwork shm_;
  LargeBuffer source_;
  LargeBuffer target_;
  std::unique_ptr<Channel> channel_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<MemoryOffer> offer_;
  std::vector<std::unique_ptr<Connection>> handshakes_;
  std::uint32_t round_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t received_ = 0;
  std::uint64_t early_ = 0;  // of the next round
  std::uint64_t pings_ = 0;
  std::uint64_t pongs_ = 0;
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

// Runs `both` in two processes that are connected; only the one that listens comes back.
template <class Both>
void in_two_processes(const Options& options, const Setting& setting, Both both) {
  int address_pipe[2];
  if (::pipe(address_pipe) != 0) std::abort();
  const pid_t child = ::fork();
  std::array<char, 64> address{};
  if (child == 0 && ::read(address_pipe[0], address.data(), address.size() - 1) <= 0) {
    std::_Exit(1);
  }
  {
    Side side(options, setting);
    if (child == 0) {
      side.dial(address.data());
    } else {
      const std::string own = side.listen();
      if (::write(address_pipe[1], own.data(), own.size()) < 0) std::abort();
    }
    side.wait_for_connections();
    both(side, child != 0);
    side.meet();
    side.drain();
    if (child == 0) std::_Exit(0);
  }
  ::waitpid(child, nullptr, 0);
  ::close(address_pipe[0]);
  ::close(address_pipe[1]);
}

double median(std::vector<double>& values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void measure_bandwidth(const Options& options, const Setting& setting) {
  std::vector<double> seconds;
  std::vector<double> processor;
  in_two_processes(options, setting, [&](Side& side, bool) {
    for (int i = 0; i <= options.repeats; ++i) {
      side.meet();
      const double before = processor_seconds();
      const double took = side.transfer();
      if (i == 0) continue;  // the first one warms up
      seconds.push_back(took);
      processor.push_back(processor_seconds() - before);
    }
  });
  const double middle = median(seconds);
  std::printf(
      "%-9s %2zu connections  %7u B segments  %6.2f GB/s per direction  %7.2f ms  (%.2f-%.2f)"
      "  processor %7.2f ms\n",
      kind_names[static_cast<std::size_t>(setting.kind)], setting.connections,
      setting.segment_bytes, static_cast<double>(setting.bytes) / middle / 1e9, middle * 1e3,
      seconds.front() * 1e3, seconds.back() * 1e3, median(processor) * 1e3);
  std::fflush(stdout);
}

void measure_round_trip(const Options& options, const Setting& setting) {
  constexpr int rounds = 2000;
  std::vector<double> seconds;
  in_two_processes(options, setting, [&](Side& side, bool first) {
    for (int i = 0; i <= options.repeats; ++i) {
      side.meet();
      const double took = side.ping_pong(first, rounds);
      if (i > 0) seconds.push_back(took);
    }
  });
  const double middle = median(seconds);
  std::printf("%-9s %7u B there and back  %7.2f us  (%.2f-%.2f)\n",
              kind_names[static_cast<std::size_t>(setting.kind)], setting.segment_bytes,
              middle * 1e6, seconds.front() * 1e6, seconds.back() * 1e6);
  std::fflush(stdout);
}

void measure_all(const Options& options, Kind kind) {
  std::vector<std::size_t> connections{1};
  if (kind == Kind::tcp) connections = {1, 2, 4};
  for (const std::size_t count : connections) {
    for (const std::uint32_t segment_bytes :
         {16u << 10, 64u << 10, 128u << 10, 256u << 10, 1024u << 10}) {
      measure_bandwidth(options, {kind, count, segment_bytes, options.bytes});
    }
  }
  for (const std::uint32_t bytes : {8u, 4096u, 8192u, 16384u, 32768u, 65536u, 262144u}) {
    measure_round_trip(options, {kind, 1, bytes, 0});
  }
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
    } else if (std::strcmp(arguments[i], "--spin") == 0 && has_value) {
      options.spin = std::chrono::microseconds(std::atoi(arguments[++i]));
    } else if (std::strcmp(arguments[i], "--lend") == 0 && has_value) {
      options.lend = std::strtoull(arguments[++i], nullptr, 10);
    } else if (std::strcmp(arguments[i], "--only") == 0 && has_value) {
      options.only = arguments[++i];
    } else {
      std::fprintf(stderr,
                   "usage: transports [--bytes N] [--repeats N] [--scratch] [--spin MICROSECONDS]\n"
                   "                  [--lend BYTES] [--only tcp|ring|reference]\n");
      return 2;
    }
  }
  for (const Kind kind : {Kind::tcp, Kind::ring, Kind::reference}) {
    const bool wanted =
        options.only.empty() || options.only == kind_names[static_cast<std::size_t>(kind)];
    if (wanted) measure_all(options, kind);
  }
  return 0;
}
