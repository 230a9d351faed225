// StateFile: what was written comes back, whatever did not is an error that names the file.
#include "runtime/state_file.hpp"

#include <doctest/doctest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "runtime/temporary_folder.hpp"

using namespace pyccl;
using protocol::CoordinatorState;
using runtime::StateFile;

namespace {

CoordinatorState example(std::uint32_t incarnation) {
  CoordinatorState state;
  state.run = RunId{77};
  state.incarnation = incarnation;
  state.view.run = state.run;
  state.view.epoch = {incarnation, 3};
  state.view.members = {{PeerId{5}, "default", protocol::Role::worker, {"10.0.0.1:7"}},
                        {PeerId{6}, "other", protocol::Role::mirror, {}}};
  state.view.decisions = {{{group_id("default"), 1, 2}, protocol::Outcome::committed, true, {}}};
  state.view.reason = "because";
  return state;
}

std::string contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void put(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Opens what must not be opened.
std::string refusal(const std::string& path) {
  const auto opened = StateFile::open(path);
  REQUIRE_FALSE(opened.ok());
  CHECK(opened.status().code() == Code::io);
  CHECK(opened.status().reason().find(path) != std::string::npos);
  return opened.status().reason();
}

}  // namespace

TEST_CASE("no file is a fresh run, and what is written is found again") {
  const TemporaryFolder folder;
  const std::string path = folder / "sub/folder/run.state";
  {
    auto file = StateFile::open(path);
    REQUIRE(file.ok());
    CHECK_FALSE(file.value()->found());
    CHECK(file.value()->write(example(1)).ok());
    CHECK(file.value()->write(example(2)).ok());
  }
  auto again = StateFile::open(path);
  REQUIRE(again.ok());
  REQUIRE(again.value()->found());
  CHECK(*again.value()->found() == example(2));
  CHECK_FALSE(std::filesystem::exists(path + ".new"));
}

TEST_CASE("a file that is cut off anywhere is an error") {
  const TemporaryFolder folder;
  const std::string path = folder / "run.state";
  REQUIRE(StateFile::open(path).take()->write(example(1)).ok());
  const std::string whole = contents(path);
  for (std::size_t length = 0; length < whole.size(); ++length) {
    CAPTURE(length);
    put(path, whole.substr(0, length));
    CHECK(refusal(path).find("damaged") != std::string::npos);
  }
  put(path, whole + '\0');
  CHECK(refusal(path).find("damaged") != std::string::npos);
}

TEST_CASE("a damaged byte anywhere is an error") {
  const TemporaryFolder folder;
  const std::string path = folder / "run.state";
  REQUIRE(StateFile::open(path).take()->write(example(1)).ok());
  const std::string whole = contents(path);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    CAPTURE(at);
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
    put(path, damaged);
    refusal(path);
  }
  put(path, whole);
  CHECK(StateFile::open(path).ok());
}

TEST_CASE("another program's file is left alone") {
  const TemporaryFolder folder;
  const std::string path = folder / "notes.txt";
  put(path, "a long and valuable text that is no state of any coordinator");
  CHECK(refusal(path).find("no state file") != std::string::npos);
  CHECK(contents(path).starts_with("a long"));
}

TEST_CASE("two coordinators can't use one state file") {
  const TemporaryFolder folder;
  const std::string path = folder / "run.state";
  {
    auto first = StateFile::open(path);
    REQUIRE(first.ok());
    CHECK(refusal(path).find("another coordinator") != std::string::npos);
    // Still locked when the file itself has been replaced.
    REQUIRE(first.value()->write(example(1)).ok());
    CHECK(refusal(path).find("another coordinator") != std::string::npos);
  }
  CHECK(StateFile::open(path).ok());
}

TEST_CASE("a write that fails is told and leaves the former state") {
  const TemporaryFolder folder;
  const std::string path = folder / "run.state";
  {
    auto file = StateFile::open(path);
    REQUIRE(file.value()->write(example(1)).ok());
    // A directory in its place: the neighbour can't be made, whoever runs the test.
    std::filesystem::create_directory(path + ".new");
    const Status status = file.value()->write(example(2));
    CHECK(status.code() == Code::io);
    CHECK(status.reason().find(path) != std::string::npos);
  }
  auto again = StateFile::open(path);
  REQUIRE(again.ok());
  CHECK(*again.value()->found() == example(1));
}

TEST_CASE("a path that can't be one is refused with its name") {
  const TemporaryFolder folder;
  put(folder / "plain", "x");
  refusal(folder / "plain/run.state");
  std::filesystem::create_directory(folder / "directory");
  refusal(folder / "directory");
  CHECK(StateFile::open("").status().code() == Code::invalid_argument);
}
