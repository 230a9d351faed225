// Reads a script line by line; a word "#" begins a comment.
#include "sim/protocol/scenario.hpp"

#include <fstream>
#include <sstream>

#include "sim/protocol/script.hpp"

namespace pyccl::sim {

ScenarioResult run_scenario(const std::string& path, Trace::Text text) {
  ScenarioResult result;
  std::ifstream file(path);
  if (!file) {
    result.failure = "can't be read";
    return result;
  }
  Script script(text);
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    Words words;
    std::istringstream stream(line);
    for (std::string word; stream >> word && word != "#";) words.push_back(word);
    if (words.empty()) continue;
    script.world().say("# ", line);
    const std::string problem = script.perform(words);
    if (problem.empty()) continue;
    result.failure = "line " + std::to_string(number) + ": " + line + ": " + problem;
    break;
  }
  result.lines = script.world().trace.lines();
  return result;
}

}  // namespace pyccl::sim
