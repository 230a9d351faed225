// Lossless compression of payloads, by zstd at its fastest level.
#pragma once

#include <memory>

#include "base/bytes.hpp"

namespace pyccl::kernels {

// What one thread compresses with.
class Zstd {
 public:
  Zstd();
  ~Zstd();
  Zstd(const Zstd&) = delete;
  Zstd& operator=(const Zstd&) = delete;

  // Takes its memory now, so that it lacks none later. Throws std::bad_alloc.
  void prepare();
  // How many bytes of `to` it took; 0: it does not fit there.
  std::size_t compress(ByteView from, MutableByteView to);
  // False: this is nothing that was compressed, or not of exactly so many bytes.
  bool decompress(ByteView from, MutableByteView to);

 private:
  struct Contexts;
  std::unique_ptr<Contexts> contexts_;
};

}  // namespace pyccl::kernels
