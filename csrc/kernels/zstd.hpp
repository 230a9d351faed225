// Lossless compression of payloads, by zstd at its fastest level.
#pragma once

#include <memory>

#include "base/bytes.hpp"

namespace pyccl::kernels {

// What one thread compresses with; its memory, about a megabyte each way, is taken when it is first
// needed.
class Zstd {
 public:
  Zstd();
  ~Zstd();
  Zstd(const Zstd&) = delete;
  Zstd& operator=(const Zstd&) = delete;

  // How many bytes of `to` it took; 0: it does not fit there. Throws std::bad_alloc.
  std::size_t compress(ByteView from, MutableByteView to);
  // False: this is nothing that was compressed, or not of exactly so many bytes. Throws
  // std::bad_alloc.
  bool decompress(ByteView from, MutableByteView to);

 private:
  struct Contexts;
  std::unique_ptr<Contexts> contexts_;
};

}  // namespace pyccl::kernels
