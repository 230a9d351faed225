// Shared memory between processes: a child that meets its parent through two pipes, as it might
// through any connection.
#include <doctest/doctest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "transport/shm_harness.hpp"

namespace pyccl::transport::test {

namespace {

void say(int fd, const std::string& text) {
  const std::string padded = text + std::string(512 - text.size(), '\n');
  if (::write(fd, padded.data(), padded.size()) != 512) std::abort();
}

std::string hear(int fd) {
  std::string text(512, '\0');
  std::size_t got = 0;
  while (got < text.size()) {
    const ssize_t count = ::read(fd, text.data() + got, text.size() - got);
    if (count <= 0) return {};
    got += static_cast<std::size_t>(count);
  }
  return text.substr(0, text.find('\n'));
}

// The other process, with a stream to it if it has been met.
class Child {
 public:
  // `before` runs in the child before it meets anybody; `body` with the stream, or with nullptr and
  // the reason.
  using Body = std::function<void(ShmHarness&, std::unique_ptr<Stream>, const std::string&)>;
  Child(ShmHarness& harness, const std::function<void()>& before, const Body& body) {
    REQUIRE((::pipe(to_child_) == 0 && ::pipe(from_child_) == 0));
    auto offer = harness.memory().offer("the child").take();
    pid_ = ::fork();
    if (pid_ == 0) {
      before();
      run(body);
      ::_exit(0);
    }
    say(to_child_[1], offer->text());
    const std::string answer = hear(from_child_[0]);
    if (answer.empty()) return;
    auto completed = offer->complete(answer);
    REQUIRE_MESSAGE(completed.ok(), completed.status().reason());
    stream = completed.take();
  }
  ~Child() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    for (const int fd : {to_child_[0], to_child_[1], from_child_[0], from_child_[1]}) ::close(fd);
  }

  void kill() { REQUIRE(::kill(pid_, SIGKILL) == 0); }
  std::string heard() { return hear(from_child_[0]); }

  std::unique_ptr<Stream> stream;

 private:
  void run(const Body& body) {
    ShmHarness harness(shm::ShmOptions{2});
    auto answer = harness.memory().accept(hear(to_child_[0]), "the parent");
    if (!answer.ok()) {
      say(from_child_[1], "");
      say(from_child_[1], answer.status().reason());
      return body(harness, nullptr, answer.status().reason());
    }
    say(from_child_[1], answer.value().text);
    body(harness, std::move(answer.value().stream), {});
  }

  int to_child_[2];
  int from_child_[2];
  pid_t pid_ = 0;
};

// Sends back whatever comes, until nobody is there any more.
void echo(ShmHarness& harness, std::unique_ptr<Stream> stream, const std::string&) {
  if (stream == nullptr) return;
  StreamEnd end(std::move(stream));
  while (!end.ended()) {
    harness.step(never);
    if (!end.received.empty() && !end.ended()) end.send(std::exchange(end.received, {}));
  }
}

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

bool memory_is_mapped() {
  std::ifstream maps("/proc/self/maps");
  const std::string text{std::istreambuf_iterator<char>(maps), {}};
  return text.find("memfd:pyccl") != std::string::npos;
}

std::size_t files_in(const char* folder) {
  const std::filesystem::directory_iterator all(folder);
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

}  // namespace

TEST_CASE("two processes talk through memory, as fast or slow as either is") {
  ShmHarness harness(shm::ShmOptions{1});
  Child child(harness, [] {}, echo);
  StreamEnd end(std::move(child.stream));
  Prng prng(1);
  for (int round = 0; round < 200; ++round) {
    const Bytes sent = pattern(1 + prng.below(std::uint64_t{1} << (prng.below(21))), prng.next());
    end.received.clear();
    end.send(sent);
    REQUIRE(run_until(harness, [&] { return end.received.size() >= sent.size(); }));
    REQUIRE(end.received == sent);
  }
}

// Killed at whatever moment, a process is missed at once, all that it had written can be read, and
// nothing of the memory is left.
TEST_CASE("the death of the other process is noticed and leaves nothing") {
  const std::size_t named = files_in("/dev/shm");
  const std::size_t descriptors = open_descriptors();
  for (int round = 0; round < 10; ++round) {
    ShmHarness harness(shm::ShmOptions{1});
    Child child(
        harness, [] {},
        [](ShmHarness& its_harness, std::unique_ptr<Stream> stream, const std::string&) {
          StreamEnd end(std::move(stream));
          end.send(pattern(1'000'000, 1));
          while (true) its_harness.step(never);
        });
    StreamEnd end(std::move(child.stream));
    const std::size_t enough = static_cast<std::size_t>(round) * 100'000;
    REQUIRE(run_until(harness, [&] { return end.received.size() >= enough; }));
    CHECK(memory_is_mapped());
    if (round % 2 == 0) end.send(pattern(10'000'000, 2));  // in the midst of it
    child.kill();
    REQUIRE(run_until(harness, [&] { return end.ended(); }));
    CHECK(end.end->code() == Code::io);
    CHECK(end.received.size() <= 1'000'000);
    const Bytes all = pattern(1'000'000, 1);
    CHECK(std::equal(end.received.begin(), end.received.end(), all.begin()));
  }
  CHECK(!memory_is_mapped());
  CHECK(files_in("/dev/shm") == named);
  CHECK(open_descriptors() == descriptors);
}

// What counts is the memory. (Without the right to make namespaces the child stays in those of its
// parent.)
TEST_CASE("processes of two network namespaces share memory") {
  ShmHarness harness(shm::ShmOptions{1});
  Child child(harness, [] { (void)::unshare(CLONE_NEWNET); }, echo);
  REQUIRE(child.stream != nullptr);
  StreamEnd end(std::move(child.stream));
  end.send(pattern(1000, 1));
  CHECK(run_until(harness, [&] { return end.received == pattern(1000, 1); }));
}

// In another namespace of process numbers an offer names some other process, or none.
TEST_CASE("processes that count processes differently don't meet") {
  ShmHarness harness(shm::ShmOptions{1});
  const auto leave = [] {
    if (::unshare(CLONE_NEWPID) != 0) return;
    const pid_t inner = ::fork();  // the first one in there
    if (inner == 0) return;
    ::waitpid(inner, nullptr, 0);
    ::_exit(0);
  };
  Child child(harness, leave, echo);
  if (child.stream != nullptr) return;  // no right to make one
  CHECK(child.heard().find("another host") != std::string::npos);
}

}  // namespace pyccl::transport::test
