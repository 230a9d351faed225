// Shared state for callers: reads its blocks with several threads, and runs a sync from begin to
// end on the calling one.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "base/time.hpp"
#include "engine/shared_state.hpp"
#include "engine/state_sync.hpp"
#include "runtime/communicator.hpp"

namespace pyccl::runtime {

class SharedState {
 public:
  explicit SharedState(engine::SharedState state) : state_(std::move(state)) {}

  // Any thread; while a sync runs they wait for its end. Its own watch may look, but what would
  // change something or read all of it is refused there (invalid_argument).
  std::uint64_t revision() const;
  Status set_revision(std::uint64_t revision);
  // The tensors have been loaded from somewhere, so that no revision is the next one.
  Status restored(std::uint64_t revision);
  Status spoil();
  bool whole() const;
  std::vector<std::string> void_tensors() const;
  // Reads all tensors.
  Result<Digest> digest();

  const std::vector<engine::Tensor>& tensors() const { return state_.tensors(); }
  std::uint64_t bytes() const { return state_.bytes(); }
  bool strict() const { return state_.strict(); }

  // Called by the thread that runs the sync: now and then while it waits, and when some of the
  // bytes to be moved have been. False: give up.
  using Watch = std::function<bool(std::uint64_t moved, std::uint64_t to_move)>;

  // Blocks. Begins with a boundary, unless the communicator is at one. `timeout` is for each of its
  // operations, of which four are under way at once, so what is large and slow takes as long as it
  // takes. Meanwhile nobody may write to the tensors.
  //
  // All members call it, and it ends alike for all, but for bytes, seconds and what is void here.
  // Errors, besides those of any operation: state_sync (engine/state_sync.hpp), invalid_argument
  // (another sync runs on this communicator), cancelled (the watch gave up, here or elsewhere).
  Status sync(Communicator&, const engine::SyncOptions&, Duration timeout, const Watch& watch,
              engine::SyncInfo& info);
  // How the last one went that succeeded.
  engine::SyncInfo last_sync() const;

 private:
  Status idle() const;

  mutable std::recursive_mutex mutex_;  // the watch may ask, too
  bool syncing_ = false;
  engine::SharedState state_;
  engine::SyncInfo last_;
};

}  // namespace pyccl::runtime
