// Readings of ways in, links out.
#include "engine/link_meter.hpp"

#include <doctest/doctest.h>

using namespace pyccl;
using namespace pyccl::engine;

namespace {

constexpr std::uint64_t mb = 1'000'000;

struct Traffic {
  std::vector<LinkMeter::Reading> readings;
  Time now{1'000'000'000};
  LinkMeter meter{64 * 1024};

  void add(std::uint64_t peer, Duration round_trip) {
    readings.push_back({{peer}, false, {round_trip, 0, false, false}});
  }
  // For so long these ways carry so many bytes a second each.
  void run(Duration time, const std::vector<std::uint64_t>& rates) {
    for (Duration passed{}; passed < time; passed += 20ms) {
      now = now + 20ms;
      for (std::size_t i = 0; i < rates.size(); ++i) {
        readings[i].way.delivered += rates[i] / 50;
        readings[i].way.full = readings[i].way.waiting = rates[i] > 0;
      }
      meter.read(now, readings);
    }
  }
  std::uint32_t rate(std::size_t i) { return meter.links().at(i).mb_per_s; }
};

}  // namespace

TEST_CASE("latency is half the shortest round trip, and is known before any rate is") {
  Traffic traffic;
  traffic.add(1, 100ms);
  traffic.add(2, 80us);
  traffic.add(3, Duration(0));
  traffic.readings.push_back({{4}, true, {}});
  traffic.run(20ms, {0, 0, 0});
  const auto links = traffic.meter.links();
  REQUIRE(links.size() == 3);  // of peer 3 nothing has come back yet
  CHECK(links[0] == protocol::MeasuredLink{{1}, 50'000, 0});
  CHECK(links[1] == protocol::MeasuredLink{{2}, 40, 0});
  CHECK(links[2] == protocol::MeasuredLink{{4}, 0, 0});
}

TEST_CASE("ways that share what this peer can send are as fast as all of them together") {
  Traffic traffic;
  for (std::uint64_t peer = 1; peer <= 4; ++peer) traffic.add(peer, 1ms);
  traffic.run(1s, {250 * mb, 240 * mb, 260 * mb, 250 * mb});
  for (std::size_t i = 0; i < 4; ++i) CHECK(traffic.rate(i) == 1000);
}

TEST_CASE("a way much slower than the others beside it is slow itself") {
  Traffic traffic;
  for (std::uint64_t peer = 1; peer <= 4; ++peer) traffic.add(peer, 1ms);
  traffic.run(500ms, {300 * mb, 300 * mb, 300 * mb, 12 * mb});
  traffic.run(2s, {0, 0, 0, 12 * mb});
  CHECK(traffic.rate(0) == 912);
  CHECK(traffic.rate(3) == 12);
}

TEST_CASE("what carries little is not judged by it") {
  Traffic traffic;
  traffic.add(1, 1ms);
  for (int burst = 0; burst < 20; ++burst) {
    traffic.run(20ms, {mb});  // 20 KB, and then a rest
    traffic.run(40ms, {0});
  }
  CHECK(traffic.rate(0) == 0);
  traffic.run(1s, {mb});  // without a rest
  CHECK(traffic.rate(0) == 1);
}

TEST_CASE("a way that has become slow is believed after a while") {
  Traffic traffic;
  traffic.add(1, 1ms);
  traffic.run(1s, {500 * mb});
  traffic.run(3s, {50 * mb});
  CHECK(traffic.rate(0) == 500);
  traffic.run(8s, {50 * mb});
  CHECK(traffic.rate(0) == 50);
}

TEST_CASE("a peer that is not there any more is forgotten") {
  Traffic traffic;
  traffic.add(1, 1ms);
  traffic.run(1s, {500 * mb});
  traffic.readings.clear();
  traffic.run(20ms, {});
  CHECK(traffic.meter.links().empty());
  traffic.add(1, 1ms);  // another life of its channel: counts begin anew
  traffic.run(20ms, {0});
  CHECK(traffic.rate(0) == 0);
}
