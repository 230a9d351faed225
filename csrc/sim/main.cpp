// pyccl_sim: runs seeds or a scenario in a simulated world and says what did not hold.
//
//   pyccl_sim --seeds A:B [--world protocol|byte|state] [--mutant NAME]
//             [--scenario FILE] [--marks] [--trace] [--verbose]
//   pyccl_sim --list
//   pyccl_sim trial ...  (--help tells)
//
// Exit code 0 if all held, else 1 and a line for each seed that failed; 2 for a wrong command line.
// The last line counts. --marks adds which coverage marks were hit and which were not; those of the
// other worlds' layers never are. --list names all marks and mutants.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "base/mark.hpp"
#include "sim/byte/run.hpp"
#include "sim/protocol/run.hpp"
#include "sim/protocol/scenario.hpp"
#include "sim/state/run.hpp"
#include "sim/trial_main.hpp"

namespace {

using namespace pyccl;

const std::map<std::string, sim::RunResult (*)(std::uint64_t, sim::Trace::Text)> worlds = {
    {"protocol", sim::run_protocol_seed},
    {"byte", sim::run_byte_seed},
    {"state", sim::run_state_seed}};

struct Options {
  std::uint64_t first = 0;
  std::uint64_t behind = 0;
  std::string world = "protocol";
  std::string mutant;
  std::string scenario;
  bool marks = false;
  bool trace = false;
  bool verbose = false;
  bool list = false;
};

// For the handler of what ends the process: which seed it was.
volatile std::uint64_t current_seed = 0;

void say_seed(int) {
  char text[80];
  const int length = std::snprintf(text, sizeof text, "seed %llu: assertion failed, or worse\n",
                                   static_cast<unsigned long long>(current_seed));
  std::fwrite(text, 1, static_cast<std::size_t>(length), stdout);
  std::fflush(stdout);
  std::_Exit(1);
}

[[noreturn]] void usage(const char* why) {
  std::fprintf(
      stderr,
      "pyccl_sim: %s\nusage: pyccl_sim --seeds A:B [--world protocol|byte|state] "
      "[--mutant NAME] [--scenario FILE] [--marks] [--trace] [--verbose]\n       pyccl_sim --list\n"
      "       pyccl_sim trial --help\n",
      why);
  std::exit(2);
}

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    const auto value = [&]() -> std::string {
      if (++i >= count) usage((name + " needs a value").c_str());
      return arguments[i];
    };
    if (name == "--seeds") {
      const std::string range = value();
      char* end = nullptr;
      options.first = std::strtoull(range.c_str(), &end, 10);
      if (*end != ':') usage("--seeds wants A:B");
      options.behind = std::strtoull(end + 1, &end, 10);
      if (*end != '\0') usage("--seeds wants A:B");
    } else if (name == "--world") {
      options.world = value();
    } else if (name == "--mutant") {
      options.mutant = value();
    } else if (name == "--scenario") {
      options.scenario = value();
    } else if (name == "--marks") {
      options.marks = true;
    } else if (name == "--trace") {
      options.trace = true;
    } else if (name == "--verbose") {
      options.verbose = true;
    } else if (name == "--list") {
      options.list = true;
    } else {
      usage(("unknown option " + name).c_str());
    }
  }
  if (!worlds.contains(options.world)) usage("no such world");
  if (!options.mutant.empty() && !pyccl::mutants().contains(options.mutant)) {
    usage("no such mutant; --list names them");
  }
  if (options.list) return options;
  if (options.scenario.empty() && options.first >= options.behind) usage("no seeds");
  return options;
}

double seconds_of(Time time) { return static_cast<double>(time.nanoseconds - 1'000'000'000) / 1e9; }

// True if everything held.
bool run_seeds(const Options& options) {
  const auto text = options.trace ? sim::Trace::Text::all : sim::Trace::Text::none;
  std::uint64_t done = 0;
  std::uint64_t failed = 0;
  for (std::uint64_t seed = options.first; seed < options.behind; ++seed) {
    current_seed = seed;
    const sim::RunResult result = worlds.at(options.world)(seed, text);
    if (options.verbose) {
      std::printf(
          "seed %llu: hash %016llx, %.3f s, %llu events, %llu commits, %llu failures, %llu views\n",
          static_cast<unsigned long long>(seed), static_cast<unsigned long long>(result.hash),
          seconds_of(result.end), static_cast<unsigned long long>(result.events),
          static_cast<unsigned long long>(result.commits),
          static_cast<unsigned long long>(result.failures),
          static_cast<unsigned long long>(result.views));
    }
    ++done;
    if (!result.failure) continue;
    ++failed;
    std::printf("seed %llu: at %.6f s, %s: %s\n", static_cast<unsigned long long>(seed),
                seconds_of(result.failure->time), result.failure->invariant.c_str(),
                result.failure->text.c_str());
    std::fflush(stdout);
    // A planted bug has been found; more of the same would say nothing new.
    if (!options.mutant.empty()) break;
  }
  std::printf("%llu seeds of the %s world, %llu failed\n", static_cast<unsigned long long>(done),
              options.world.c_str(), static_cast<unsigned long long>(failed));
  return failed == 0;
}

bool run_scenario(const Options& options) {
  const auto text = options.trace ? sim::Trace::Text::all : sim::Trace::Text::last;
  const sim::ScenarioResult result = sim::run_scenario(options.scenario, text);
  if (result.failure.empty()) return true;
  if (!options.trace && options.verbose) {
    for (const std::string& line : result.lines) std::printf("%s\n", line.c_str());
  }
  std::printf("%s: %s\n", options.scenario.c_str(), result.failure.c_str());
  return false;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1 && std::strcmp(arguments[1], "trial") == 0) {
    return sim::trial_main(count, arguments);
  }
  const Options options = parse(count, arguments);
  std::signal(SIGABRT, say_seed);
  std::signal(SIGSEGV, say_seed);
  if (options.list) {
    for (const auto& [name, planted] : pyccl::mutants()) std::printf("mutant %s\n", name.c_str());
    for (const auto& [name, hit] : pyccl::marks()) std::printf("mark %s\n", name.c_str());
    return 0;
  }
  if (!options.mutant.empty()) *pyccl::mutants()[options.mutant] = true;
  const bool well = options.scenario.empty() ? run_seeds(options) : run_scenario(options);
  if (options.marks) {
    for (const auto& [name, hit] : pyccl::marks()) {
      std::printf("%s %s\n", *hit ? "mark" : "never", name.c_str());
    }
  }
  return well ? 0 : 1;
}
