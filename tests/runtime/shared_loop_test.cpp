// Who runs a loop, where a turn of it fails.
#include "runtime/shared_loop.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <thread>

using namespace pyccl;
using namespace pyccl::runtime;

TEST_CASE("a driver that an exception takes out of the loop leaves it to the next") {
  Reactor reactor;
  bool fails = true;
  int turns = 0;
  SharedLoop loop(reactor, {[&](Time, bool driven) {
                              CHECK(driven);
                              if (fails) throw std::bad_alloc();
                              ++turns;
                            },
                            [] { return false; }});
  CHECK_THROWS_AS(loop.drive([] { return false; }, 1s), std::bad_alloc);
  fails = false;
  CHECK(loop.drive([&] { return turns == 3; }, 1s));
  CHECK(turns == 3);
}

TEST_CASE("turns of the loop's own thread are not driven") {
  Reactor reactor;
  std::atomic<int> own{0};
  std::atomic<int> driven_turns{0};
  SharedLoop loop(reactor, {[&](Time until, bool driven) {
                              ++(driven ? driven_turns : own);
                              reactor.run_once(std::min(until, reactor.update_time() + 1ms));
                            },
                            [] { return false; }});
  std::thread thread([&] { loop.run([] {}); });
  while (own.load() < 3) std::this_thread::yield();
  CHECK(driven_turns.load() == 0);
  loop.stop();
  thread.join();
}
