// Who runs a loop, where a turn of it fails.
#include "runtime/shared_loop.hpp"

#include <doctest/doctest.h>

#include <new>

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
