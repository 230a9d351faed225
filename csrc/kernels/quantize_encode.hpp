// Blocks of numbers to codes.
#pragma once

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

// A block that is about to be encoded.
template <class Codec>
struct Prepared {
  Prepared(const float* numbers_, std::size_t block, bool brain)
      : numbers(numbers_),
        scale(find_scale<Codec>(numbers, block, brain, half)),
        quotient(scale, half),
        quick(quotient) {}

  const float* numbers;
  float half;
  BlockScale scale;
  Quotient<Codec> quotient;
  QuickNearest<Codec> quick;
};

// The numbers of a block, which are finite, to `codes`, and what they decode to into `rounded`.
template <class Codec, bool with_rounded, class Encode>
PYCCL_INLINE void encode_numbers(const float* numbers, std::size_t block, const BlockScale& scale,
                                 std::byte* codes, float* rounded, Encode encode) {
  const Decoder<Codec> decoder(scale);
  for (std::size_t at = 0; at < block; at += chunk_elements) {
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
}

template <class Codec, bool stochastic>
class BlockEncoder {
 public:
  explicit BlockEncoder(const EncodeArguments& call)
      : call_(call),
        layout_(call.format),
        type_(static_cast<std::size_t>(call.dtype)),
        rounded_type_(static_cast<std::size_t>(call.rounded_dtype)) {}

  // A block's scale is found before the block before it is encoded: the processor works at that
  // encoding while it waits for the few numbers on the long way to a scale.
  float run() {
    float largest = 0;
    if (call_.count == 0) return largest;
    Prepared<Codec> next = prepared(0);
    for (std::size_t number = 0; number * layout_.block < call_.count; ++number) {
      const Prepared<Codec> block = next;
      if ((number + 1) * layout_.block < call_.count) next = prepared(number + 1);
      encode(number, block);
      largest = larger_step<Codec>(largest, block.scale);
    }
    return largest;
  }

 private:
  std::size_t count_of(std::size_t number) const {
    const std::size_t left = call_.count - number * layout_.block;
    return left < layout_.block ? left : layout_.block;
  }

  PYCCL_INLINE Prepared<Codec> prepared(std::size_t number) {
    return Prepared<Codec>(numbers_of(number), layout_.block, layout_.brain);
  }

  // As f32, and as many as a full block has.
  PYCCL_INLINE const float* numbers_of(std::size_t number) {
    const std::size_t count = count_of(number);
    const std::byte* source = call_.source + number * layout_.block * element_bytes[type_];
    if (type_ == PYCCL_F32 && count == layout_.block) return reinterpret_cast<const float*>(source);
    float* numbers = numbers_[number % 2].number;
    widen_of[type_](source, count, numbers);
    // Whatever is found in a block is found in its first number too.
    for (std::size_t i = count; i < layout_.block; ++i) numbers[i] = numbers[0];
    return numbers;
  }

  PYCCL_INLINE void encode(std::size_t number, const Prepared<Codec>& block) {
    const std::size_t count = count_of(number);
    std::byte* codes = call_.destination + number * layout_.wire_bytes;
    codes = write_scales<Codec>(codes, block.scale, layout_.brain);
    if (call_.rounded == nullptr) {
      encode<false>(number, block, codes, nullptr);
    } else {
      const std::size_t place = number * layout_.block;
      std::byte* to = call_.rounded + place * element_bytes[rounded_type_];
      if (rounded_type_ == PYCCL_F32 && count == layout_.block) {
        encode<true>(number, block, codes, reinterpret_cast<float*>(to));
      } else {
        encode<true>(number, block, codes, rounded_.number);
        narrow_of[rounded_type_](rounded_.number, count, to);
      }
    }
    if (count < layout_.block) clear_padding(codes, count);
  }

  template <bool with_rounded>
  PYCCL_INLINE void encode(std::size_t number, const Prepared<Codec>& block, std::byte* codes,
                           float* rounded) const {
    if (!block.scale.is_number) {
      std::memset(codes, 0, codes_bytes<Codec>(layout_.block));
      if constexpr (with_rounded) fill_nan(rounded, layout_.block);
      return;
    }
    const auto run = [&](auto encode) {
      encode_numbers<Codec, with_rounded>(block.numbers, layout_.block, block.scale, codes, rounded,
                                          encode);
    };
    if constexpr (stochastic) {
      const Draws draws(call_.rounding.seed, call_.rounding.first_block + number);
      run([&](Floats x, std::size_t place) {
        return Codec::template encode<true>(block.quotient.template of<false>(x), draws.at(place));
      });
    } else if (block.quotient.is_tame()) {
      run([&](Floats x, std::size_t) { return block.quick.code(x); });
    } else {
      run([&](Floats x, std::size_t) {
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
  BlockBuffer numbers_[2];
  BlockBuffer rounded_;
};

template <class Codec, bool stochastic>
float encode_blocks(const EncodeArguments& call) {
  return BlockEncoder<Codec, stochastic>(call).run();
}

}  // namespace
}  // namespace pyccl::kernels
