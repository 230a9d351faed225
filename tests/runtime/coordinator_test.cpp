// Coordinators end to end: restarts, ports in use, garbage on every port, and processes that fork.
#include "runtime/coordinator.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/cluster.hpp"
#include "runtime/temporary_folder.hpp"

using namespace pyccl;
using namespace pyccl::runtime;

namespace {

std::uint16_t port_of(const std::string& address) {
  return static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1)));
}

// Sends bytes to a port of the loopback; true if the other side closes the connection in time.
bool closes_on(const std::string& address, const std::string& bytes) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port_of(address));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0);
  REQUIRE(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(bytes.size()));
  char byte;
  pollfd readable{fd, POLLIN, 0};
  bool closed = false;
  while (!closed && ::poll(&readable, 1, 15'000) == 1) closed = ::recv(fd, &byte, 1, 0) <= 0;
  ::close(fd);
  return closed;
}

void sum_among(Cluster& cluster, float expected) {
  std::vector<std::vector<float>> values(cluster.peers.size(), std::vector<float>(1000, 1.0f));
  std::vector<WorkPtr> works;
  for (std::size_t i = 0; i < values.size(); ++i) {
    works.push_back(cluster.peers[i]->call(sum_of(values[i]), patience));
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    require_ok(works[i]);
    CHECK(values[i].front() == expected);
    CHECK(values[i].back() == expected);
  }
}

}  // namespace

TEST_CASE("a coordinator comes back on its state file; meanwhile operations go on") {
  const TemporaryFolder folder;
  CoordinatorSettings settings;
  settings.bind = "127.0.0.1:0";
  settings.state_path = folder / "run.state";
  Cluster cluster(2, start_coordinator(settings));
  CHECK(cluster.coordinator->incarnation() == 1);
  settings.bind = cluster.coordinator->address();
  cluster.coordinator->stop();
  cluster.coordinator.reset();
  sum_among(cluster, 2.0f);

  cluster.coordinator = start_coordinator(settings);
  CHECK(cluster.coordinator->incarnation() == 2);
  CHECK(cluster.coordinator->address() == settings.bind);
  cluster.peers.push_back(open_peer(settings.bind));
  cluster.admit_all();
  sum_among(cluster, 3.0f);
  CHECK(cluster.peers[0]->view().epoch.incarnation == 2);
}

TEST_CASE("a port in use and a state file in use are refused by name") {
  const TemporaryFolder folder;
  CoordinatorSettings settings;
  settings.bind = "127.0.0.1:0";
  settings.state_path = folder / "run.state";
  const auto first = start_coordinator(settings);

  const auto same_file = Coordinator::start(settings);
  REQUIRE_FALSE(same_file.ok());
  CHECK(same_file.status().code() == Code::io);
  CHECK(same_file.status().reason().find("run.state") != std::string::npos);

  settings.state_path.reset();
  settings.bind = first->address();
  const auto same_port = Coordinator::start(settings);
  REQUIRE_FALSE(same_port.ok());
  CHECK(same_port.status().code() == Code::address_in_use);
  CHECK(same_port.status().reason().find(first->address()) != std::string::npos);
}

TEST_CASE("a state file that can't be written is told at the start") {
  const TemporaryFolder folder;
  CoordinatorSettings settings;
  settings.bind = "127.0.0.1:0";
  settings.state_path = folder / "run.state";
  std::filesystem::create_directory(*settings.state_path + ".new");
  const auto started = Coordinator::start(settings);
  REQUIRE_FALSE(started.ok());
  CHECK(started.status().code() == Code::io);
  CHECK(started.status().reason().find("run.state") != std::string::npos);
}

TEST_CASE("settings that make no sense are refused") {
  CoordinatorSettings settings;
  for (const char* bind : {"", "nowhere", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:port"}) {
    CAPTURE(bind);
    settings.bind = bind;
    CHECK(Coordinator::start(settings).status().code() == Code::invalid_argument);
  }
  const auto refused = [](auto change) {
    ConnectOptions options;
    options.coordinator = "127.0.0.1:1";
    change(options);
    return Communicator::open(options).status().code();
  };
  using Options = ConnectOptions;
  CHECK(refused([](Options& o) { o.coordinator = "here"; }) == Code::invalid_argument);
  CHECK(refused([](Options& o) { o.connections = 0; }) == Code::invalid_argument);
  CHECK(refused([](Options& o) { o.connections = 65; }) == Code::invalid_argument);
  CHECK(refused([](Options& o) { o.group = ""; }) == Code::invalid_argument);
  CHECK(refused([](Options& o) { o.group = std::string(300, 'x'); }) == Code::invalid_argument);
  CHECK(refused([](Options& o) { o.timeout = 0s; }) == Code::invalid_argument);
  CHECK(refused([](Options& o) { o.listen = "70000"; }) == Code::invalid_argument);
  CHECK(refused([](Options& o) { o.advertise = "x:y"; }) == Code::invalid_argument);
}

TEST_CASE("a coordinator that is not there is told within the timeout, with its address") {
  auto coordinator = start_coordinator();
  ConnectOptions options;
  options.coordinator = coordinator->address();
  options.timeout = 200ms;
  coordinator.reset();
  auto opened = Communicator::open(options);
  REQUIRE(opened.ok());
  const WorkPtr admission = opened.value()->admission();
  const Status status = ended(admission);
  CHECK(status.code() == Code::coordinator_unavailable);
  CHECK(status.reason().find(options.coordinator) != std::string::npos);
}

TEST_CASE("a joiner whom nobody lets in is told so, and the member does not notice") {
  Cluster cluster(1);
  ConnectOptions options;
  options.coordinator = cluster.coordinator->address();
  options.timeout = 200ms;
  auto joiner = Communicator::open(options);
  REQUIRE(joiner.ok());
  CHECK(ended(joiner.value()->admission()).code() == Code::not_admitted);
  CHECK(ended(joiner.value()->call(barrier_of(0), patience)).code() == Code::not_admitted);
  sum_among(cluster, 1.0f);
}

TEST_CASE("garbage on any port closes its own connection and harms nobody") {
  Cluster cluster(2);
  std::string noise(5000, '\0');
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = static_cast<char>(i * 37 + 11);
  const std::string oversized = std::string("lcyp\x01\x01\0\0\xff\xff\xff\xff", 12) + noise;
  const std::string request = "GET / HTTP/1.1\r\n\r\n" + noise;
  for (const std::string& bytes : {noise, request, oversized}) {
    CHECK(closes_on(cluster.coordinator->address(), bytes));
    for (const auto& peer : cluster.peers) CHECK(closes_on(peer->address(), bytes));
  }
  sum_among(cluster, 2.0f);
}

TEST_CASE("a forked child can't use or break its parent's communicator") {
  Cluster cluster(2);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::alarm(20);  // a child that hangs must not outlive the test
    const bool refused = cluster.peers[0]->call(barrier_of(0), patience)->done();
    cluster.peers[0]->close();
    cluster.peers.clear();
    cluster.coordinator.reset();
    ::_exit(refused ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  sum_among(cluster, 2.0f);
}

TEST_CASE("peers listen on the loopback only if the coordinator is there") {
  auto coordinator = start_coordinator();
  auto peer = open_peer(coordinator->address());
  CHECK(peer->address().starts_with("127.0.0.1:"));
  CoordinatorSettings v6;
  v6.bind = "[::1]:0";
  auto started = Coordinator::start(v6);
  if (!started.ok()) {
    MESSAGE("this host has no IPv6: " << started.status().reason());
    return;
  }
  Cluster cluster(2, started.take());
  CHECK(cluster.peers[1]->address().starts_with("[::1]:"));
  sum_among(cluster, 2.0f);
}
