// CommandQueue: order, wake-ups, bounds, and many producers at once.
#include <doctest/doctest.h>

#include <memory>
#include <thread>
#include <vector>

#include "base/queue.hpp"

using pyccl::CommandQueue;
using pyccl::Pushed;

TEST_CASE("a queue tells who has to wake the consumer, once a batch") {
  CommandQueue<int> queue(8);
  int one = 1, two = 2, three = 3;
  CHECK(queue.push(one) == Pushed::first);
  CHECK(queue.push(two) == Pushed::behind);
  std::vector<int> batch{99};
  queue.drain(batch);
  CHECK(batch == std::vector<int>{1, 2});
  CHECK(queue.push(three) == Pushed::first);
  queue.drain(batch);
  CHECK(batch == std::vector<int>{3});
  queue.drain(batch);
  CHECK(batch.empty());
}

TEST_CASE("a full or closed queue leaves the item with its owner") {
  CommandQueue<std::unique_ptr<int>> queue(1);
  auto kept = std::make_unique<int>(1);
  CHECK(queue.push(kept) == Pushed::first);
  CHECK(kept == nullptr);
  auto refused = std::make_unique<int>(2);
  CHECK(queue.push(refused) == Pushed::full);
  CHECK(*refused == 2);
  queue.close();
  CHECK(queue.push(refused) == Pushed::closed);
  CHECK(*refused == 2);
  std::vector<std::unique_ptr<int>> batch;
  queue.drain(batch);
  REQUIRE(batch.size() == 1);
  CHECK(*batch.front() == 1);
}

TEST_CASE("many producers: nothing is lost and each one's order is kept") {
  constexpr int producers = 4, each = 2000;
  CommandQueue<int> queue(producers * each);
  std::vector<std::thread> threads;
  for (int producer = 0; producer < producers; ++producer) {
    threads.emplace_back([&queue, producer] {
      for (int i = 0; i < each; ++i) {
        int item = producer * each + i;
        queue.push(item);
      }
    });
  }
  std::vector<int> next(producers, 0);
  std::vector<int> batch;
  int got = 0;
  while (got < producers * each) {
    queue.drain(batch);
    for (const int item : batch) {
      const auto producer = static_cast<std::size_t>(item / each);
      REQUIRE(item % each == next[producer]);
      ++next[producer];
      ++got;
    }
  }
  for (auto& thread : threads) thread.join();
  queue.drain(batch);
  CHECK(batch.empty());
}
