// Readings and stretches; see link_meter.hpp.
#include "engine/link_meter.hpp"

#include <algorithm>
#include <utility>

namespace pyccl::engine {
namespace {

constexpr std::size_t stretches = 8;      // that are remembered
constexpr std::size_t samples_max = 256;  // of a stretch
constexpr Duration pause = 200ms;         // between readings; over a longer one nobody knows
constexpr std::uint64_t idle_bytes = 64;  // less has not used its way

std::uint64_t per_second(std::uint64_t bytes, Duration time) {
  return bytes * 1'000'000'000 /
         static_cast<std::uint64_t>(std::max<std::int64_t>(time.count(), 1));
}

// Within bounds, so that what has been measured is never "not known".
std::uint32_t whole(std::uint64_t value) {
  constexpr std::uint64_t most = 1'000'000'000;
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(value, 1, most));
}

}  // namespace

void LinkMeter::Best::end_stretch() {
  if (present == 0) return;
  former.push_back(std::exchange(present, 0));
  if (former.size() > stretches) former.pop_front();
}

std::uint64_t LinkMeter::Best::most() const {
  const auto found = std::ranges::max_element(former);
  return found == former.end() ? present : std::max(present, *found);
}

bool LinkMeter::due(Time now) const {
  // A reading costs a call of the system for each connection.
  const auto others = static_cast<std::int64_t>(ways_.size());
  return now >= last_ + interval + others * 250us;
}

bool LinkMeter::read(Time now, const std::vector<Reading>& readings) {
  const Duration passed = now - std::exchange(last_, now);
  std::map<PeerId, Way> ways;
  Use use;
  for (const Reading& reading : readings) {
    Way& way = ways[reading.peer];
    if (const auto known = ways_.find(reading.peer); known != ways_.end()) {
      way = std::move(known->second);
    }
    way.near = reading.near;
    const std::uint64_t before = std::exchange(way.last, reading.way).delivered;
    const std::uint64_t bytes = reading.way.delivered - std::min(reading.way.delivered, before);
    if (!reading.way.full || bytes < idle_bytes || passed > pause) {
      way.begin(now);
      continue;
    }
    way.waiting = way.waiting && reading.way.waiting;
    way.bytes += bytes;
    use.bytes += bytes;
    ++use.ways;
  }
  ways_ = std::move(ways);
  use.rate = per_second(use.bytes, passed);
  if (use.ways > 0) judge(now, use);
  if (now < stretch_began_ + stretch) return false;
  stretch_began_ = now;
  for (auto& [peer, way] : ways_) {
    way.rates.present = rate_of(way);
    way.rates.end_stretch();
    way.samples.clear();
  }
  together_.end_stretch();
  return true;
}

void LinkMeter::judge(Time now, const Use& use) {
  together_.present = std::max(together_.present, use.rate);
  for (auto& [peer, way] : ways_) {
    if (way.bytes < bytes_min_) continue;
    if (way.samples.size() < samples_max) {
      const std::uint64_t rate = per_second(way.bytes, now - way.since);
      way.samples.push_back({rate, way.bytes, way.waiting, use});
    }
    way.begin(now);
  }
}

// What a way could have carried alone in the present stretch. When this peer sent all that it can,
// did this way have its share?
std::uint64_t LinkMeter::rate_of(const Way& way) const {
  const std::uint64_t most = together_.most();
  std::uint64_t at_most = 0;
  std::uint64_t shared = 0;
  for (const Sample& sample : way.samples) {
    if (sample.use.rate * 2 < most) continue;
    at_most += sample.bytes;
    if (sample.rate * 2 * sample.use.ways >= sample.use.rate) shared += sample.bytes;
  }
  if (at_most > 0 && shared * 2 >= at_most) return most;
  // If not, the rate that half of its bytes had at least while others waited: not a burst that one
  // reading has caught, and not the time in which it waited for what goes on elsewhere.
  std::vector<Sample> sorted = way.samples;
  std::erase_if(sorted, [](const Sample& sample) { return !sample.waiting; });
  std::ranges::sort(sorted, {}, &Sample::rate);
  std::uint64_t all = 0;
  for (const Sample& sample : sorted) all += sample.bytes;
  std::uint64_t slower = 0;
  for (const Sample& sample : sorted) {
    slower += sample.bytes;
    if (slower * 2 >= all) return sample.rate;
  }
  return 0;
}

std::vector<protocol::MeasuredLink> LinkMeter::links() const {
  std::vector<protocol::MeasuredLink> links;
  for (const auto& [peer, way] : ways_) {
    if (way.near) {
      links.push_back({peer, 0, 0});
    } else if (way.last.round_trip > Duration::zero()) {
      const auto half =
          std::chrono::duration_cast<std::chrono::microseconds>(way.last.round_trip / 2).count();
      const std::uint64_t rate = std::max(way.rates.most(), rate_of(way));
      links.push_back(
          {peer, whole(static_cast<std::uint64_t>(half)), rate == 0 ? 0 : whole(rate / 1'000'000)});
    }
  }
  return links;
}

}  // namespace pyccl::engine
