// Blocks of numbers to codes.
#pragma once

#include "kernels/prefetch.hpp"
#include "kernels/quantize_blocks.hpp"
#include "kernels/quantize_quotient.hpp"
#include "kernels/quantize_value.hpp"

namespace pyccl::kernels {
namespace {

// What is drawn for the numbers of a block: a hash of the block's key and the place.
class Draws {
 public:
  Draws(std::uint64_t seed, std::uint64_t block) {
    std::uint64_t z = seed + 0x9e3779b97f4a7c15u * (block + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    std::uint32_t start[lanes];
    for (std::size_t i = 0; i < lanes; ++i) start[i] = static_cast<std::uint32_t>(z + i * stride);
    std::memcpy(&start_, start, sizeof(start_));
  }

  PYCCL_INLINE Words at(std::size_t place) const {
    Words h = start_ + static_cast<std::uint32_t>(place * stride);
    h = (h ^ (h >> 16)) * 0x7feb352du;
    h = (h ^ (h >> 15)) * 0x846ca68bu;
    return h ^ (h >> 16);
  }

 private:
  static constexpr std::uint64_t stride = 0x9e3779b9;

  Words start_;
};

template <bool minmax>
PYCCL_INLINE Search<minmax> searched(const float* numbers, std::size_t block) {
  Search<minmax> search;
  for (std::size_t at = 0; at < block; at += chunk_elements) search.add(load_numbers(numbers + at));
  return search;
}

// A block that is about to be encoded.
template <class Codec>
struct Prepared {
  Prepared(const float* numbers_, const Search<Codec::minmax>& search, bool brain)
      : numbers(numbers_),
        scale(scale_of<Codec>(search.extremes(), brain, half)),
        quotient(scale, half),
        quick(quotient) {}

  const float* numbers;
  float half;
  BlockScale scale;
  Quotient<Codec> quotient;
  QuickNearest<Codec> quick;
};

// The numbers of a block, which are finite, to `codes`, and what they decode to into `rounded`;
// meanwhile the search in the block that lies `ahead`.
template <class Codec, bool with_rounded, class Encode>
PYCCL_INLINE Search<Codec::minmax> encode_numbers(const float* numbers, std::size_t block,
                                                  const BlockScale& scale, std::byte* codes,
                                                  float* rounded, const float* ahead,
                                                  Encode encode) {
  const Decoder<Codec> decoder(scale);
  Search<Codec::minmax> search;
  for (std::size_t at = 0; at < block; at += chunk_elements) {
    prefetch_to_read(ahead + at, sizeof(Chunk<Floats>));
    if constexpr (with_rounded) prefetch_to_write(rounded + at, sizeof(Chunk<Floats>));
    search.add(load_numbers(ahead + at));
    const Chunk<Floats> chunk = load_numbers(numbers + at);
    Chunk<Words> code;
    Chunk<Floats> decoded;
    for (std::size_t i = 0; i < parts; ++i) {
      code.part[i] = encode(chunk.part[i], at + i * lanes);
      if constexpr (with_rounded) decoded.part[i] = decoder(code.part[i]);
    }
    store_codes<Codec>(codes + codes_bytes<Codec>(at), code);
    if constexpr (with_rounded) store_numbers(rounded + at, decoded);
  }
  return search;
}

// Three blocks are on their way at a time. One is encoded; the next one's scale comes out of few
// numbers in many steps, which the processor does meanwhile; and the one after that is searched in
// the same loop, so that it comes from memory while there is something to compute.
template <class Codec, bool stochastic>
class BlockEncoder {
 public:
  explicit BlockEncoder(const EncodeArguments& call)
      : call_(call),
        layout_(call.format),
        type_(static_cast<std::size_t>(call.dtype)),
        rounded_type_(static_cast<std::size_t>(call.rounded_dtype)) {}

  // Behind the last block the blocks ahead are others, whose scales are of no use to anybody.
  float run() {
    if (call_.count == 0) return 0;
    const std::size_t blocks = (call_.count - 1) / layout_.block + 1;
    const float* numbers = numbers_of(0);
    Prepared<Codec> next(numbers, searched<Codec::minmax>(numbers, layout_.block), layout_.brain);
    if (blocks > 1) numbers = numbers_of(1);
    Found found = searched<Codec::minmax>(numbers, layout_.block);
    float largest = 0;
    for (std::size_t number = 0; number < blocks; ++number) {
      const Prepared<Codec> block = next;
      next = Prepared<Codec>(numbers, found, layout_.brain);
      numbers = number + 2 < blocks ? numbers_of(number + 2) : block.numbers;
      found = encode(number, block, numbers);
      largest = larger_step<Codec>(largest, block.scale);
    }
    return largest;
  }

 private:
  using Found = Search<Codec::minmax>;

  std::size_t count_of(std::size_t number) const {
    const std::size_t left = call_.count - number * layout_.block;
    return left < layout_.block ? left : layout_.block;
  }

  // As f32, and as many as a full block has.
  PYCCL_INLINE const float* numbers_of(std::size_t number) {
    const std::size_t count = count_of(number);
    const std::byte* source = call_.source + number * layout_.block * element_bytes[type_];
    if (type_ == PYCCL_F32 && count == layout_.block) return reinterpret_cast<const float*>(source);
    float* numbers = numbers_[number % 3].number;
    widen_of[type_](source, count, numbers);
    // Whatever is found in a block is found in its first number too.
    for (std::size_t i = count; i < layout_.block; ++i) numbers[i] = numbers[0];
    return numbers;
  }

  PYCCL_INLINE Found encode(std::size_t number, const Prepared<Codec>& block, const float* ahead) {
    const std::size_t count = count_of(number);
    const bool is_full = count == layout_.block;
    std::byte* codes = call_.destination + number * layout_.wire_bytes;
    codes = write_scales<Codec>(codes, block.scale, layout_.brain);
    Found found;
    if (call_.rounded == nullptr) {
      found = encode<false>(number, block, codes, nullptr, ahead);
    } else {
      std::byte* to = call_.rounded + number * layout_.block * element_bytes[rounded_type_];
      const bool direct = rounded_type_ == PYCCL_F32 && is_full;
      float* rounded = direct ? reinterpret_cast<float*>(to) : rounded_.number;
      found = encode<true>(number, block, codes, rounded, ahead);
      if (!direct) narrow_of[rounded_type_](rounded, count, to);
    }
    if (!is_full) clear_padding(codes, count);
    return found;
  }

  template <bool with_rounded>
  PYCCL_INLINE Found encode(std::size_t number, const Prepared<Codec>& block, std::byte* codes,
                            float* rounded, const float* ahead) const {
    if (!block.scale.is_number) {
      std::memset(codes, 0, codes_bytes<Codec>(layout_.block));
      if constexpr (with_rounded) fill_nan(rounded, layout_.block);
      return searched<Codec::minmax>(ahead, layout_.block);
    }
    const auto run = [&](auto encode) {
      return encode_numbers<Codec, with_rounded>(block.numbers, layout_.block, block.scale, codes,
                                                 rounded, ahead, encode);
    };
    if constexpr (stochastic) {
      const Draws draws(call_.rounding.seed, call_.rounding.first_block + number);
      return run([&](Floats x, std::size_t place) {
        return Codec::template encode<true>(block.quotient.template of<false>(x), draws.at(place));
      });
    } else if (block.quotient.is_tame()) {
      return run([&](Floats x, std::size_t) { return block.quick.code(x); });
    } else {
      return run([&](Floats x, std::size_t) {
        return Codec::template encode<false>(block.quotient.template of<false>(x), Words{});
      });
    }
  }

  void clear_padding(std::byte* codes, std::size_t count) const {
    std::size_t first = codes_bytes<Codec>(count);
    if (Codec::bits == 4 && count % 2 == 1) codes[first++] &= std::byte{0x0f};
    std::memset(codes + first, 0, codes_bytes<Codec>(layout_.block) - first);
  }

  const EncodeArguments& call_;
  const Layout<Codec> layout_;
  const std::size_t type_;
  const std::size_t rounded_type_;
  BlockBuffer numbers_[3];
  BlockBuffer rounded_;
};

template <class Codec, bool stochastic>
float encode_blocks(const EncodeArguments& call) {
  return BlockEncoder<Codec, stochastic>(call).run();
}

}  // namespace
}  // namespace pyccl::kernels
