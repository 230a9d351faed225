// See zstd.hpp.
#include "kernels/zstd.hpp"

#include <zstd.h>

#include <new>

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

std::size_t Zstd::compress(ByteView from, MutableByteView to) {
  constexpr int fastest = 1;
  auto& context = contexts_->compression;
  if (context == nullptr) context.reset(ZSTD_createCCtx());
  if (context == nullptr) throw std::bad_alloc();
  const std::size_t size =
      ZSTD_compressCCtx(context.get(), to.data(), to.size(), from.data(), from.size(), fastest);
  return ZSTD_isError(size) != 0 ? 0 : size;
}

bool Zstd::decompress(ByteView from, MutableByteView to) {
  auto& context = contexts_->decompression;
  if (context == nullptr) context.reset(ZSTD_createDCtx());
  if (context == nullptr) throw std::bad_alloc();
  const std::size_t size =
      ZSTD_decompressDCtx(context.get(), to.data(), to.size(), from.data(), from.size());
  return ZSTD_isError(size) == 0 && size == to.size();
}

}  // namespace pyccl::kernels
