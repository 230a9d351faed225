// Work: waiting, waking, and being told.
#include <doctest/doctest.h>

#include <atomic>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "runtime/work.hpp"

using namespace pyccl;
using runtime::Work;

namespace {

engine::OperationInfo info_of(std::int32_t world_size) {
  engine::OperationInfo info;
  info.world_size = world_size;
  return info;
}

}  // namespace

TEST_CASE("a work that has not ended says so at the end of the wait") {
  Work work;
  CHECK_FALSE(work.done());
  CHECK_FALSE(work.wait(0s));
  CHECK_FALSE(work.wait(-1s));
  CHECK_FALSE(work.wait(1ms));
}

TEST_CASE("all who wait wake with the same outcome, however long they would have waited") {
  const auto work = std::make_shared<Work>();
  std::atomic<int> woken = 0;
  std::vector<std::thread> threads;
  for (const Duration limit : {Duration(1h), Duration::max(), Duration(24h * 365)}) {
    threads.emplace_back([work, limit, &woken] {
      if (work->wait(limit) && work->status().code() == Code::timeout &&
          work->info().world_size == 3) {
        ++woken;
      }
    });
  }
  work->finish(Status(Code::timeout, "late"), info_of(3));
  for (auto& thread : threads) thread.join();
  CHECK(woken == 3);
  CHECK(work->wait(0s));
  CHECK(work->status().reason() == "late");
}

TEST_CASE("callbacks run once, before and after the end") {
  Work work;
  int before = 0, after = 0;
  work.on_done([&] {
    // The outcome is there when the callback runs.
    CHECK(work.info().world_size == 2);
    ++before;
  });
  CHECK(before == 0);
  work.finish({}, info_of(2));
  CHECK(before == 1);
  work.on_done([&] { ++after; });
  CHECK(after == 1);
  CHECK(before == 1);
}

TEST_CASE("a callback that comes while the work ends is neither lost nor run twice") {
  for (int round = 0; round < 200; ++round) {
    Work work;
    std::atomic<int> calls = 0;
    std::thread ender([&] { work.finish({}, {}); });
    work.on_done([&] { ++calls; });
    ender.join();
    CHECK(calls == 1);
  }
}
