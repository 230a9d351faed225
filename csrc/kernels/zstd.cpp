// See zstd.hpp.
#include "kernels/zstd.hpp"

#include <zstd.h>

#include <new>

#include "base/assert.hpp"

namespace pyccl::kernels {
namespace {

struct Free {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

}  // namespace

struct Zstd::Contexts {
  std::unique_ptr<ZSTD_CCtx, Free> compression;
  std::unique_ptr<ZSTD_DCtx, Free> decompression;
};

Zstd::Zstd() : contexts_(std::make_unique<Contexts>()) {}
Zstd::~Zstd() = default;

void Zstd::prepare() {
  auto& [compression, decompression] = *contexts_;
  if (compression == nullptr) compression.reset(ZSTD_createCCtx());
  if (decompression == nullptr) decompression.reset(ZSTD_createDCtx());
  if (compression == nullptr || decompression == nullptr) throw std::bad_alloc();
}

std::size_t Zstd::compress(ByteView from, MutableByteView to) {
  constexpr int fastest = 1;
  PYCCL_ASSERT(contexts_->compression != nullptr);
  const std::size_t size = ZSTD_compressCCtx(contexts_->compression.get(), to.data(), to.size(),
                                             from.data(), from.size(), fastest);
  return ZSTD_isError(size) != 0 ? 0 : size;
}

bool Zstd::decompress(ByteView from, MutableByteView to) {
  PYCCL_ASSERT(contexts_->decompression != nullptr);
  const std::size_t size = ZSTD_decompressDCtx(contexts_->decompression.get(), to.data(), to.size(),
                                               from.data(), from.size());
  return ZSTD_isError(size) == 0 && size == to.size();
}

}  // namespace pyccl::kernels
