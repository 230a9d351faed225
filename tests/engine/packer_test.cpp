// Blocks are compressed once, where they get shorter, until that has shown to be in vain.
#include "engine/packer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

#include "base/prng.hpp"

using namespace pyccl;
using namespace pyccl::engine;

namespace {

constexpr std::size_t block_bytes = 4096;

Bytes noise(std::size_t size) {
  Prng prng(7);
  Bytes bytes(size);
  std::ranges::generate(bytes, [&] { return static_cast<std::byte>(prng.below(256)); });
  return bytes;
}

}  // namespace

TEST_CASE("what is compressed comes back, and nothing else does") {
  kernels::Zstd zstd;
  zstd.prepare();
  const Bytes blocks(block_bytes, std::byte{5});
  Bytes packed(block_bytes);
  const std::size_t size = zstd.compress(blocks, packed);
  REQUIRE(size > 0);
  REQUIRE(size < blocks.size());
  const ByteView frame = ByteView(packed).first(size);
  Bytes back(block_bytes);
  CHECK(zstd.decompress(frame, back));
  CHECK(back == blocks);
  Bytes shorter(block_bytes - 1);
  CHECK_FALSE(zstd.decompress(frame, shorter));
  Bytes longer(block_bytes + 1);
  CHECK_FALSE(zstd.decompress(frame, longer));
  CHECK_FALSE(zstd.decompress(frame.first(size - 1), back));
  CHECK_FALSE(zstd.decompress(noise(100), back));
  CHECK(zstd.compress(noise(block_bytes), MutableByteView(packed).first(block_bytes - 1)) == 0);
}

TEST_CASE("a segment is compressed once, and goes out as it is where that makes it no shorter") {
  kernels::Zstd zstd;
  zstd.prepare();
  MemoryPool pool;
  Packer packer(zstd);
  PackedBlocks packed(4, block_bytes, pool);
  const Bytes same(block_bytes, std::byte{1});
  const ByteView first = packed.get(0, same, packer);
  CHECK(first.size() < same.size());
  CHECK(packed.get(0, same, packer).data() == first.data());
  CHECK(packer.bytes_sent() == 2 * first.size());
  const Bytes odd = noise(2 * block_bytes);
  CHECK(packed.get(1, odd, packer).data() == odd.data());
  CHECK(packer.bytes_sent() == 2 * first.size());
}

TEST_CASE("a packer gives up when nothing gets shorter") {
  kernels::Zstd zstd;
  zstd.prepare();
  MemoryPool pool;
  Packer packer(zstd);
  PackedBlocks packed(100, block_bytes, pool);
  const Bytes odd = noise(block_bytes);
  for (std::uint64_t block = 0; block < 70; ++block) packed.get(block, odd, packer);
  CHECK_FALSE(packer.worth_it());
  const Bytes same(block_bytes, std::byte{1});
  CHECK(packed.get(99, same, packer).data() == same.data());
}
