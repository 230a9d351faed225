// What a member still lacks of the elected state, and the memory into which it comes. A block is
// looked at before it is written: what does not have the elected digest never reaches a tensor.
//
// Where all that is lacking fits into `staged_bytes_max`, it is written when it is complete, so a
// sync that fails before leaves the old bits. Else it is written as it comes, and what was written
// is void if the rest does not follow.
#pragma once

#include <cstdint>
#include <vector>

#include "base/digest.hpp"
#include "base/memory.hpp"
#include "engine/shared_state.hpp"

namespace pyccl::engine {

class BlockIntake {
 public:
  struct Limits {
    std::uint64_t window_bytes;  // that are asked for at once
    std::size_t windows;         // of these at the same time
    std::uint64_t staged_bytes_max;
  };

  BlockIntake(SharedState& state, Limits limits) : state_(state), limits_(limits) {}

  // From now on these blocks are wanted. What was staged of the same content stays.
  void expect(std::uint64_t revision, const Digest& content, std::vector<Digest> blocks);
  // The state's blocks have been read again, since somebody got other bits than it had reported.
  void compare();
  // Takes the memory for what is lacking. Throws std::bad_alloc.
  void reserve();

  const std::vector<bool>& lacks() const { return lacks_; }
  // Bits that this member has, wherever they lie at present.
  ByteView block(std::size_t index) const;

  // Where the `index`-th window of a pass may be received.
  std::byte* window(std::size_t index, std::uint64_t bytes);
  // A block has come. False: these are not its bits.
  bool take(std::size_t index, const std::byte* bytes);
  // Writes what is staged if nothing is lacking any more, and completes the state.
  void settle();

 private:
  SharedState& state_;
  Limits limits_;
  std::uint64_t revision_ = 0;
  Digest content_;
  std::vector<Digest> wanted_;
  std::vector<bool> lacks_;
  std::uint64_t lacking_bytes_ = 0;
  bool changes_ = false;  // something was lacking at first

  bool stages_ = false;
  std::vector<LargeBuffer> staging_;  // the last one is in use
  std::size_t staging_used_ = 0;
  std::vector<const std::byte*> staged_;  // by block; nullptr: not there
  LargeBuffer windows_;
};

}  // namespace pyccl::engine
