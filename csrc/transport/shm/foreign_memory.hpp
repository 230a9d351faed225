// Reading another process's memory, where the system allows it.
//
// A process is only known by its number, and numbers are used again. So each read also fetches a
// mark, drawn at random, that the process keeps at a known place: what comes without it is not its.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <span>

#include "base/bytes.hpp"
#include "transport/lending.hpp"
#include "transport/shm/region.hpp"

namespace pyccl::transport::shm {

// The mark of this process. A forked child does not have it: there it is overwritten by zeros.
class Mark {
 public:
  // nullptr if there is no memory for it; then nobody can read from this process.
  static std::shared_ptr<const Mark> make(const Nonce& nonce);
  ~Mark();
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

  Whereabouts whereabouts() const;

 private:
  Mark(void* page, const Nonce& nonce);
  void* page_;
  Nonce nonce_;
};

class ForeignMemory {
 public:
  explicit ForeignMemory(const Whereabouts& whereabouts) : whereabouts_(whereabouts) {}

  enum class Outcome { complete, unreadable, gone };
  // `to` has room for all that `from` names.
  Outcome read(std::span<const ForeignPiece> from, std::span<const MutableByteView> to) const;
  // Whether the mark can be read.
  bool readable() const { return read({}, {}) == Outcome::complete; }

 private:
  Whereabouts whereabouts_;
};

}  // namespace pyccl::transport::shm
