// The command line of trials.
#include "sim/trial_main.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "sim/byte/trial.hpp"

namespace pyccl::sim {
namespace {

using collectives::Algorithm;
using collectives::Kind;

const char* const help =
    "usage: pyccl_sim trial [--kind all_reduce] [--algorithm auto] [--bytes 1048576]\n"
    "                       [--peers 16] [--latency-ms 50] [--mb-per-s 125] [--slow A:B:MB]\n"
    "                       [--rounds 2]\n"
    "\n"
    "One operation among peers whose links all have this latency (one way) and who send, and get,\n"
    "so many 1e6 bytes a second; the way between the peers A and B may be narrower. Processors\n"
    "cost nothing. An exchange is between the peers 0 and 1, 2 and 3 and so on, all at once.\n"
    "Behind each round all call update(), so the next one goes by what the links have shown.\n"
    "`delays` are one-way latencies beyond the time that the busiest peer sends.\n"
    "Exit code 0 if all results are right.\n";

[[noreturn]] void wrong(const std::string& why) {
  std::fprintf(stderr, "pyccl_sim: %s\n%s", why.c_str(), help);
  std::exit(2);
}

double number(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(value > 0) || value > 1e15) wrong("not a number: " + text);
  return value;
}

// Of things that have a name_of() and count from 0.
template <class Named>
Named named(const std::string& text, int count) {
  for (int i = 0; i < count; ++i) {
    const auto one = static_cast<Named>(i);
    if (collectives::name_of(one) == text) return one;
  }
  wrong("unknown name: " + text);
}

TrialOptions::SlowPair slow_pair(const std::string& text) {
  unsigned long a = 0;
  unsigned long b = 0;
  double rate = 0;
  char rest = 0;
  if (std::sscanf(text.c_str(), "%lu:%lu:%lf%c", &a, &b, &rate, &rest) != 3 || a == b ||
      !(rate > 0)) {
    wrong("--slow wants A:B:MB, two different peers and 1e6 bytes a second");
  }
  return {a, b, static_cast<std::uint64_t>(rate * 1e6)};
}

TrialOptions parse(int count, char** arguments) {
  TrialOptions options;
  for (int i = 2; i < count; ++i) {
    const std::string name = arguments[i];
    if (name == "--help") {
      std::fputs(help, stdout);
      std::exit(0);
    }
    if (++i >= count) wrong(name + " needs a value");
    const std::string value = arguments[i];
    if (name == "--kind") {
      options.kind = named<Kind>(value, static_cast<int>(Kind::exchange) + 1);
    } else if (name == "--algorithm") {
      options.algorithm = named<Algorithm>(value, PYCCL_ALGORITHM_COUNT);
    } else if (name == "--bytes") {
      options.bytes = static_cast<std::uint64_t>(number(value));
    } else if (name == "--peers") {
      options.peers = static_cast<std::size_t>(number(value));
    } else if (name == "--latency-ms") {
      options.latency = Duration(static_cast<std::int64_t>(number(value) * 1e6));
    } else if (name == "--mb-per-s") {
      options.bytes_per_second = static_cast<std::uint64_t>(number(value) * 1e6);
    } else if (name == "--slow") {
      options.slow = slow_pair(value);
    } else if (name == "--rounds") {
      options.rounds = static_cast<int>(number(value));
    } else {
      wrong("unknown option " + name);
    }
  }
  if (!collectives::offers(options.kind, options.algorithm)) {
    wrong("this collective has " + collectives::algorithms_of(options.kind));
  }
  if (options.peers > 64 || options.peers < 1) wrong("1 to 64 peers");
  if (options.kind == Kind::send) wrong("one way alone is not tried, but --kind exchange is");
  if (options.kind == Kind::exchange && options.peers % 2 != 0) wrong("pairs of an odd number");
  if (options.slow && std::max(options.slow->a, options.slow->b) >= options.peers) {
    wrong("--slow names a peer that is not there");
  }
  return options;
}

double milliseconds(Duration time) { return static_cast<double>(time.count()) / 1e6; }

}  // namespace

int trial_main(int count, char** arguments) {
  const TrialOptions options = parse(count, arguments);
  const TrialResult result = run_trial(options);
  const double latency = milliseconds(options.latency);
  std::printf("%-20s %12s %12s %8s %12s %8s\n", "algorithm", "sending ms", "whole ms", "delays",
              "ended ms", "delays");
  for (const TrialRound& round : result.rounds) {
    const double sending = milliseconds(round.sending);
    const double whole = milliseconds(round.whole);
    const double ended = milliseconds(round.committed);
    std::printf("%-20s %12.3f %12.3f %8.2f %12.3f %8.2f\n", round.algorithm.c_str(), sending, whole,
                (whole - sending) / latency, ended, (ended - sending) / latency);
  }
  if (!result.failure.empty()) std::printf("%s\n", result.failure.c_str());
  return result.failure.empty() ? 0 : 1;
}

}  // namespace pyccl::sim
