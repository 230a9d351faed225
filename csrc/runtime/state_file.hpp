// The coordinator's state in a file that is either the old one or the new one, never half of each.
//
// Layout: magic "pyccl\0st", format (4 bytes), length of what follows (8), its checksum (8), then
// the state as protocol::encode_state writes it; little endian. Written to a neighbour, flushed to
// the disk and renamed over the old one; the directory is flushed too, since the name is in it.
//
// One coordinator per file: a lock on PATH.lock is held as long as this object lives. (Not on the
// file itself, which every write replaces.) The system drops it when the process dies.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/bytes.hpp"
#include "base/file_descriptor.hpp"
#include "base/status.hpp"
#include "engine/coordinator_host.hpp"
#include "protocol/coordinator.hpp"

namespace pyccl::runtime {

class StateFile final : public engine::StateStore {
 public:
  // Makes the directory if it is missing, takes the lock and reads. A file that is damaged is an
  // error that names it, never a fresh run: its members may still be at work.
  static Result<std::unique_ptr<StateFile>> open(const std::string& path);
  ~StateFile() override;
  StateFile(const StateFile&) = delete;
  StateFile& operator=(const StateFile&) = delete;

  // What the file held when it was opened; none: there was no file.
  const std::optional<protocol::CoordinatorState>& found() const { return found_; }

  Status write(const protocol::CoordinatorState&) override;

 private:
  StateFile(std::string path, FileDescriptor lock);
  Status read();

  const std::string path_;
  const FileDescriptor lock_;
  std::optional<protocol::CoordinatorState> found_;
};

}  // namespace pyccl::runtime
