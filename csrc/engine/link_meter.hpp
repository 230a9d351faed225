// What the traffic on channels says of the ways that they take; nothing is ever sent for it.
//
// Latency is half the shortest round trip. Rates are those of times when a way had as much to carry
// as it could. Where several had at once and one of them carried about its share of all that this
// peer sent, it could have carried all of that alone; one that carried much less is slow itself. Of
// the last seconds with such times the best counts, for what makes a way look slower than it is
// passes.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "base/ids.hpp"
#include "base/time.hpp"
#include "protocol/messages.hpp"
#include "transport/network.hpp"

namespace pyccl::engine {

class LinkMeter {
 public:
  // `bytes_min`: how much a way has to carry without a rest before its rate can be told.
  explicit LinkMeter(std::uint64_t bytes_min) : bytes_min_(bytes_min) {}

  struct Reading {
    PeerId peer;
    bool near = false;  // on the same host
    transport::WayMeasurement way;
  };

  // To be asked while there is traffic.
  bool due(Time now) const;
  // All that is known at present; peers that are not named are forgotten. True: a second is over,
  // and links() may be new.
  bool read(Time now, const std::vector<Reading>& readings);

  std::vector<protocol::MeasuredLink> links() const;

 private:
  static constexpr Duration interval = 2ms;
  static constexpr Duration stretch = 1s;

  // Bytes a second, the most in each stretch.
  struct Best {
    std::uint64_t present = 0;
    std::deque<std::uint64_t> former;  // the last one behind
    void end_stretch();
    std::uint64_t most() const;
  };

  // Of all ways, between two readings.
  struct Use {
    std::uint64_t ways = 0;  // that were busy
    std::uint64_t bytes = 0;
    std::uint64_t rate = 0;
  };

  // A time in which a way was busy.
  struct Sample {
    std::uint64_t rate = 0;
    std::uint64_t bytes = 0;
    bool waiting = false;  // at its begin and its end there was more to carry
    Use use;
  };

  struct Way {
    bool near = false;
    transport::WayMeasurement last;
    Time since;  // it has been busy from then on, and has carried so much
    std::uint64_t bytes = 0;
    bool waiting = false;
    std::vector<Sample> samples;  // of this stretch
    Best rates;
    void begin(Time now) {
      since = now;
      bytes = 0;
      waiting = last.waiting;
    }
  };

  void judge(Time now, const Use& use);
  std::uint64_t rate_of(const Way& way) const;

  std::uint64_t bytes_min_;
  Time last_;
  Time stretch_began_;
  std::map<PeerId, Way> ways_;
  Best together_;  // all that this peer has sent
};

}  // namespace pyccl::engine
