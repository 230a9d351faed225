// Shared memory: the conformance suite, and what only it has: rings that wrap, memory that the
// other side spoils, and offers that prove nothing.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <deque>
#include <string>
#include <thread>

#include "transport/shm/stream.hpp"
#include "transport/shm_harness.hpp"

namespace pyccl::transport::test {

using shm::Bell;
using shm::Ending;
using shm::Mapping;

namespace {

template <std::size_t ring_bytes, bool borrow>
std::unique_ptr<Harness> make_shm() {
  shm::ShmOptions options;
  options.seed = 1;
  options.ring_bytes = ring_bytes;
  options.borrow = borrow;
  if (ring_bytes == 1024) options.lend_bytes_min = 100;
  return std::make_unique<ShmHarness>(options);
}
constexpr std::size_t usual = shm::ShmOptions{}.ring_bytes;
constexpr std::size_t tiny = 1024;  // most frames are cut

// A stream, and its memory as the other side sees it.
struct Victim {
  explicit Victim(runtime::Reactor& reactor, std::size_t ring_bytes = 1024)
      : Victim(reactor, Mapping::create(ring_bytes).take(), Bell::create().take()) {}
  Victim(runtime::Reactor& reactor, Mapping own, Bell bell)
      : enemy(
            Mapping::open(FileDescriptor(::fcntl(own.fd(), F_DUPFD_CLOEXEC, 0)), own.ring(0).size())
                .take()),
        other(Bell::open(shm::OtherProcess::open(::getpid()).take(), bell.to_creator(),
                         bell.from_creator())
                  .take()),
        end(std::make_unique<shm::ShmStream>(reactor, std::move(own), std::move(bell), 0,
                                             shm::Terms{}, "nowhere")) {}

  shm::Region& region() { return enemy.region(); }

  Mapping enemy;
  Bell other;
  StreamEnd end;
};

std::string word_of(const std::string& text, std::size_t word) {
  std::size_t begin = 0;
  for (; word > 0; --word) begin = text.find(' ', begin) + 1;
  return text.substr(begin, text.find(' ', begin) - begin);
}

std::string replaced(const std::string& text, std::size_t word, const std::string& by) {
  std::size_t begin = 0;
  for (; word > 0; --word) begin = text.find(' ', begin) + 1;
  return text.substr(0, begin) + by + text.substr(std::min(text.find(' ', begin), text.size()));
}

}  // namespace

TEST_CASE("streams over shared memory") { stream_conformance(make_shm<usual, false>); }
TEST_CASE("connections over shared memory") { connection_conformance(make_shm<usual, false>); }
TEST_CASE("channels over shared memory") { channel_conformance(make_shm<usual, false>); }
TEST_CASE("faults over shared memory") { channel_fault_conformance(make_shm<usual, false>); }

TEST_CASE("streams over little memory") { stream_conformance(make_shm<tiny, false>); }
TEST_CASE("connections over little memory") { connection_conformance(make_shm<tiny, false>); }
TEST_CASE("faults over little memory") { channel_fault_conformance(make_shm<tiny, false>); }

TEST_CASE("connections by reference") { connection_conformance(make_shm<usual, true>); }
TEST_CASE("channels by reference") { channel_conformance(make_shm<usual, true>); }
TEST_CASE("faults by reference") { channel_fault_conformance(make_shm<usual, true>); }
TEST_CASE("channels by reference, in little memory") { channel_conformance(make_shm<tiny, true>); }

TEST_CASE("a ring gives back what was put in, wherever it wraps") {
  Mapping mapping = Mapping::create(64).take();
  shm::RingWriter writer(mapping.region().directions[0], mapping.ring(0));
  shm::RingReader reader(mapping.region().directions[0], mapping.ring(0));
  Prng prng(1);
  std::deque<std::byte> model;
  for (int i = 0; i < 20'000; ++i) {
    const Bytes bytes = pattern(prng.below(100), prng.next());
    const std::size_t cut = prng.below(bytes.size() + 1);
    if (prng.chance(1, 2)) {
      const std::array<ByteView, 2> parts{ByteView(bytes).first(cut), ByteView(bytes).subspan(cut)};
      const std::size_t count = writer.write(parts);
      REQUIRE(count == std::min(bytes.size(), 64 - model.size()));
      model.insert(model.end(), bytes.begin(), bytes.begin() + std::ptrdiff_t(count));
      REQUIRE(writer.has_room(64 - model.size()));
      REQUIRE(!writer.has_room(65 - model.size()));
    } else {
      Bytes target(bytes.size());
      const std::array<MutableByteView, 2> parts{MutableByteView(target).first(cut),
                                                 MutableByteView(target).subspan(cut)};
      const std::size_t count = reader.read(parts);
      REQUIRE(count == std::min(target.size(), model.size()));
      REQUIRE(std::equal(target.begin(), target.begin() + std::ptrdiff_t(count), model.begin()));
      model.erase(model.begin(), model.begin() + std::ptrdiff_t(count));
      REQUIRE(reader.empty() == model.empty());
    }
  }
  CHECK(!writer.broken());
  CHECK(!reader.broken());
}

TEST_CASE("positions that can't be true break the stream") {
  runtime::Reactor reactor;
  const auto run = [&](Victim& victim) {
    for (int i = 0; i < 100 && !victim.end.ended(); ++i) reactor.run_once(reactor.now());
    REQUIRE(victim.end.ended());
    CHECK(victim.end.end->code() == Code::protocol_violation);
  };
  for (const std::uint64_t written : {1025ull, 1ull << 40, ~0ull}) {
    Victim victim(reactor);
    victim.region().directions[1].written = written;
    run(victim);
    CHECK(victim.end.received.empty());
  }
  SUBCASE("written bytes are taken back") {
    Victim victim(reactor);
    victim.region().directions[1].written = 500;
    reactor.run_once(reactor.now());
    CHECK(victim.end.received.size() == 500);
    victim.region().directions[1].written = 499;
    run(victim);
  }
  SUBCASE("what was never written has been read") {
    Victim victim(reactor);
    victim.end.send(pattern(3000, 1));
    reactor.run_once(reactor.now());
    victim.region().directions[0].read = 1025;
    run(victim);
  }
}

// Whatever stands in the memory, nothing else is touched; the sanitizers watch.
TEST_CASE("spoilt memory harms nobody") {
  runtime::Reactor reactor;
  Prng prng(1);
  for (int round = 0; round < 300; ++round) {
    Victim victim(reactor);
    victim.end.send(pattern(10'000, prng.next()));
    auto* words = reinterpret_cast<std::uint64_t*>(&victim.region());
    for (int i = 0; i < 50 && !victim.end.ended(); ++i) {
      const std::size_t at = prng.below(sizeof(shm::Region) / 8);
      words[at] = prng.chance(1, 2) ? prng.below(2000) : prng.next();
      reactor.run_once(reactor.now());
    }
  }
}

TEST_CASE("memory that could be cut off, or is something else, is not taken") {
  const auto refused = [](int fd) {
    return !Mapping::open(FileDescriptor(::fcntl(fd, F_DUPFD_CLOEXEC, 0)), 1024).ok();
  };
  const Mapping good = Mapping::create(1024).take();
  CHECK(!refused(good.fd()));
  CHECK(::ftruncate(good.fd(), 0) != 0);
  CHECK(!Mapping::open(FileDescriptor(::fcntl(good.fd(), F_DUPFD_CLOEXEC, 0)), 2048).ok());
  const FileDescriptor open_ended(::memfd_create("pyccl", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  REQUIRE(::ftruncate(open_ended.get(), ::lseek(good.fd(), 0, SEEK_END)) == 0);
  CHECK(refused(open_ended.get()));
  const FileDescriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  CHECK(refused(null.get()));
}

TEST_CASE("only an offer that is found in memory is taken up") {
  shm::ShmOptions options;
  options.ring_bytes = 1024;
  ShmHarness harness(options);
  SharedMemory& memory = harness.memory();
  const auto offer = memory.offer("there").take();
  const std::string text = offer->text();
  CAPTURE(text);
  REQUIRE(text.size() < memory_text_bytes_max);
  const auto reason = [&](const std::string& changed) {
    CAPTURE(changed);
    const auto answer = memory.accept(changed, "here");
    REQUIRE(!answer.ok());
    return answer.status().reason();
  };
  const std::string other = std::to_string(::open("/dev/zero", O_RDWR | O_CLOEXEC));
  CHECK(reason(replaced(text, 1, "elsewhere")).find("another host") != std::string::npos);
  CHECK(reason(replaced(text, 2, "2147483647")).find("process 2147483647") != std::string::npos);
  for (const std::size_t word : {3u, 4u, 5u}) {
    CHECK(reason(replaced(text, word, other)).find("none of") != std::string::npos);
    CHECK(reason(replaced(text, word, "99999")).find("can't be looked at") != std::string::npos);
  }
  CHECK(reason(replaced(text, 6, "2048")).find("no memory of this kind") != std::string::npos);
  CHECK(reason(replaced(text, 7, "1:2")).find("not the one") != std::string::npos);
  Prng prng(1);
  for (int i = 0; i < 2000; ++i) {
    std::string garbled = text;
    garbled[prng.below(garbled.size())] = static_cast<char>(prng.next());
    garbled.resize(prng.chance(1, 4) ? prng.below(garbled.size()) : garbled.size());
    if (garbled != text) (void)memory.accept(garbled, "here");
  }
  REQUIRE(::close(std::stoi(other)) == 0);
  const auto answer = memory.accept(text, "here");
  REQUIRE(answer.ok());
  CHECK(answer.value().stream->remote_address() == "here");
  CHECK(offer->complete(answer.value().text).ok());
}

TEST_CASE("many streams share the memory that one process may have for rings") {
  shm::ShmOptions options;
  options.ring_bytes = 64 * 1024;
  options.rings_bytes = 1 << 20;
  ShmHarness harness(options);
  std::vector<std::unique_ptr<MemoryOffer>> offers;
  const auto next = [&] {
    offers.push_back(harness.memory().offer("").take());
    return word_of(offers.back()->text(), 6);
  };
  for (int i = 1; i <= 8; ++i) CHECK(next() == "65536");
  CHECK(next() == "32768");
  while (offers.size() < 100) (void)next();
  CHECK(next() == "4096");
  auto answer = harness.memory().accept(offers[80]->text(), "");
  REQUIRE(answer.ok());
  CHECK(offers[80]->complete(answer.value().text).ok());
  offers.clear();
  CHECK(next() == "65536");
}

TEST_CASE("only an answer that is found in memory is believed") {
  ShmHarness harness(shm::ShmOptions{});
  for (const char* wrong : {"", "0:0", "1:2", "1", "1:", ":", "x:y", "1:2:3"}) {
    CAPTURE(wrong);
    auto offer = harness.memory().offer("there").take();
    StreamEnd accepted(std::move(harness.memory().accept(offer->text(), "here").value().stream));
    CHECK(!offer->complete(wrong).ok());
    harness.step(harness.now());
    CHECK(!accepted.ended());
    offer.reset();  // and then the other side knows
    CHECK(run_until(harness, [&] { return accepted.ended(); }));
  }
}

// Who goes to sleep while the other one writes is woken, each time.
TEST_CASE("no ring of the bell is lost") {
  runtime::Reactor here, there;
  shm::ShmOptions options;
  tcp::TcpNetwork tcp_here(here), tcp_there(there);
  shm::ShmNetwork shm_here(here, tcp_here, options), shm_there(there, tcp_there, options);
  auto offer = shm_here.shared_memory()->offer("").take();
  auto answer = shm_there.shared_memory()->accept(offer->text(), "").take();
  StreamEnd left(offer->complete(answer.text).take());
  StreamEnd right(std::move(answer.stream));
  static constexpr std::size_t rounds = 20'000;
  bool late = false;
  const auto run = [&late](runtime::Reactor& reactor, StreamEnd& end, std::size_t ahead) {
    const std::array<ByteView, 1> ball{std::as_bytes(std::span("o", 1))};
    for (std::size_t sent = 0, seen = 0; seen < rounds || sent < rounds;) {
      if (sent < std::min(seen + ahead, rounds)) sent += end.stream->write(ball).bytes;
      if (end.received.size() == seen && seen < rounds) {
        const Time limit = reactor.update_time() + 10s;
        reactor.run_once(limit);
        if (reactor.now() >= limit) late = true;
      }
      seen = end.received.size();
    }
  };
  std::thread other([&] { run(there, right, 0); });
  run(here, left, 1);
  other.join();
  CHECK(!late);
}

}  // namespace pyccl::transport::test
