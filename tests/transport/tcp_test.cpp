// What only TCP has: addresses, names, ports, descriptors; and the reactor below it.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "transport/harnesses.hpp"
#include "transport/tcp/address.hpp"
#include "transport/tcp/socket.hpp"

namespace pyccl::transport::test {

using tcp::parse_address;
using tcp::resolve;

TEST_CASE("addresses are parsed and printed") {
  for (const char* text : {"127.0.0.1:1", "10.1.2.3:65535", "[::1]:80", "[2001:db8::5]:443"}) {
    const auto address = parse_address(text);
    REQUIRE(address.ok());
    CHECK(tcp::to_text(address.value()) == text);
  }
  for (const char* text : {"", ":", "127.0.0.1", "127.0.0.1:", ":80", "::1:80", "[::1]", "[]:1",
                           "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:http", "somewhere:80"}) {
    CAPTURE(text);
    const auto address = parse_address(text);
    REQUIRE(!address.ok());
    CHECK(address.status().code() == Code::invalid_argument);
    CHECK(address.status().reason().find(text) != std::string::npos);
  }
}

TEST_CASE("names are resolved") {
  const auto numeric = resolve("127.0.0.1:48148");
  REQUIRE(numeric.ok());
  CHECK(numeric.value() == std::vector<std::string>{"127.0.0.1:48148"});
  const auto local = resolve("localhost:48148");
  REQUIRE(local.ok());
  CHECK(std::ranges::any_of(local.value(), [](const std::string& text) {
    return text == "127.0.0.1:48148" || text == "[::1]:48148";
  }));
  CHECK(resolve("no port").status().code() == Code::invalid_argument);
  CHECK(resolve("name.invalid:1").status().code() == Code::invalid_argument);
}

TEST_CASE("a dial to nonsense fails from the loop") {
  TcpHarness harness("127.0.0.1:0");
  StreamEnd end;
  end.dial(harness, "not an address");
  CHECK(!end.ended());
  REQUIRE(run_until(harness, [&] { return end.ended(); }));
  CHECK(end.end->reason().find("not an address") != std::string::npos);
}

TEST_CASE("sockets do not survive exec and do not wait") {
  TcpHarness harness("127.0.0.1:0");
  const FileDescriptor fd = tcp::make_socket(AF_INET);
  REQUIRE(fd.valid());
  CHECK((::fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((::fcntl(fd.get(), F_GETFL) & O_NONBLOCK) != 0);
}

TEST_CASE("streams within the host are not paced") {
  const FileDescriptor fd = tcp::make_socket(AF_INET);
  REQUIRE(fd.valid());
  tcp::avoid_pacing(fd.get());
  std::array<char, 16> name{};
  socklen_t size = name.size();
  REQUIRE(::getsockopt(fd.get(), IPPROTO_TCP, TCP_CONGESTION, name.data(), &size) == 0);
  CHECK(std::string(name.data()) == "reno");
}

// A dial to an unused port of the range that outgoing connections get theirs from is now and then
// answered by its own socket. That must look like a refusal.
TEST_CASE("nobody talks to himself") {
  TcpHarness harness("127.0.0.1:0");
  std::ifstream range("/proc/sys/net/ipv4/ip_local_port_range");
  int lowest = 0, highest = 0;
  REQUIRE((range >> lowest >> highest));
  // The kernel prefers ports of the parity of the lowest one; there are half as many of them.
  const std::string address = "127.0.0.1:" + std::to_string(lowest + (highest - lowest) / 4 * 2);
  for (int i = 0; i < 2 * (highest - lowest); ++i) {
    StreamEnd end;
    end.dial(harness, address);
    while (!end.ended() && !end.connected) harness.step(harness.now() + 1s);
    REQUIRE(!end.connected);
    REQUIRE(end.end->reason().find("refused") != std::string::npos);
  }
}

// Out of descriptors, callers are turned away; the loop neither spins nor forgets how to accept.
TEST_CASE("a listener survives the lack of descriptors") {
  TcpHarness harness("127.0.0.1:0");
  Acceptor acceptor(harness);
  std::vector<FileDescriptor> callers;
  for (int i = 0; i < 3; ++i) callers.push_back(tcp::make_socket(AF_INET));
  std::vector<FileDescriptor> hoard;
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  const int highest = ::fcntl(callers.back().get(), F_DUPFD_CLOEXEC, 0);
  REQUIRE(highest >= 0);
  hoard.emplace_back(highest);
  rlimit low = before;
  low.rlim_cur = static_cast<rlim_t>(highest) + 1;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &low) == 0);
  const auto to = parse_address(acceptor.address()).take();
  for (const auto& caller : callers) (void)::connect(caller.get(), to.raw(), to.size);
  const auto hung_up = [&](const FileDescriptor& caller) {
    std::array<char, 1> one;
    return ::recv(caller.get(), one.data(), one.size(), 0) == 0;
  };
  const bool all = run_until(harness, [&] { return std::ranges::all_of(callers, hung_up); });
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  CHECK(all);
  CHECK(acceptor.ends.empty());
  StreamEnd end;
  end.dial(harness, acceptor.address());
  CHECK(run_until(harness, [&] { return end.connected && acceptor.ends.size() == 1; }));
}

TEST_CASE("a listener on [::] takes both families") {
  TcpHarness harness("127.0.0.1:0");
  Acceptor acceptor(harness, "[::]:0");
  const std::string port = acceptor.address().substr(acceptor.address().rfind(':'));
  std::array<StreamEnd, 2> ends;
  ends[0].dial(harness, "[::1]" + port);
  ends[1].dial(harness, "127.0.0.1" + port);
  CHECK(run_until(harness, [&] {
    return ends[0].connected && ends[1].connected && acceptor.ends.size() == 2;
  }));
}

TEST_CASE("the reactor wakes from any thread and keeps its deadline") {
  runtime::Reactor reactor;
  const Time begin = reactor.update_time();
  reactor.run_once(begin + 20ms);
  CHECK(reactor.now() - begin >= 20ms);
  std::atomic<int> rounds{0};
  std::atomic<bool> over{false};
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) {
      const int seen = rounds.load();
      reactor.wake();
      while (rounds.load() == seen) std::this_thread::yield();
    }
    over = true;
    reactor.wake();
  });
  // Each wake-up ends a wait. A wait may also end without one, where the loop was going to sleep
  // when it was woken and has seen that by itself.
  bool lost = false;
  while (!over.load()) {
    const Time limit = reactor.update_time() + 10s;
    reactor.run_once(limit);
    lost = lost || reactor.now() >= limit;
    ++rounds;
  }
  other.join();
  CHECK(!lost);
  CHECK(rounds.load() >= 1000);
}

}  // namespace pyccl::transport::test
