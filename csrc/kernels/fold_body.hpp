// The folds, written once for lanes of any width and compiled by each target_*.cpp for its
// processor.
//
// A fold takes a block of a few vectors from each source in turn, keeps the partial results in
// registers, and writes the block once: memory is passed over once however many sources there are.
// A Format says how elements lie in memory and in which type they are reduced, an Operator how two
// of them become one.
#pragma once

#include "kernels/fold_call.hpp"
#include "kernels/half.hpp"
#include "kernels/lanes.hpp"

namespace pyccl::kernels {
namespace {

// Elements that are reduced as they are stored.
template <class T>
struct Plain {
  using Element = T;
  using Scalar = T;
  using Working = Lanes<T, lane_count<T>>;
  using Stored = Working;
  static constexpr std::size_t parts = 1;  // vectors of Working in one of Stored

  static PYCCL_INLINE void widen(Stored stored, Working* working) { *working = stored; }
  static PYCCL_INLINE Stored narrow(const Working* working) {
    if constexpr (std::is_floating_point_v<T>) return canonical<T>(*working);
    return *working;
  }
};

struct Half {
  using Element = std::uint16_t;
  using Scalar = float;
  using Working = Lanes<float, lane_count<float>>;
  using Stored = Lanes<std::uint16_t, lane_count<float>>;
  static constexpr std::size_t parts = 1;

  static PYCCL_INLINE void widen(Stored stored, Working* working) { *working = widen_half(stored); }
  static PYCCL_INLINE Stored narrow(const Working* working) {
    return narrow_half(canonical<float>(*working));
  }
};

// bf16 is the upper half of an f32, so each 32 bits hold two elements that need no shuffle, only a
// shift or a mask; a fold does not mind that the even and the odd ones are apart.
struct Brain {
  using Element = std::uint16_t;
  using Scalar = float;
  using Working = Lanes<float, lane_count<float>>;
  using Stored = Lanes<std::uint32_t, lane_count<float>>;
  static constexpr std::size_t parts = 2;

  static PYCCL_INLINE void widen(Stored stored, Working* working) {
    working[0] = bits_as<Working>(stored << 16);
    working[1] = bits_as<Working>(stored & 0xffff0000u);
  }
  static PYCCL_INLINE Stored narrow(const Working* working) {
    return round_brain(bits_as<Stored>(canonical<float>(working[0]))) >> 16 |
           (round_brain(bits_as<Stored>(canonical<float>(working[1]))) & 0xffff0000u);
  }
};

// Each source goes through before(), the fold of all through after(). Integers come as unsigned
// types except for Min and Max, and small ones are cast back, since C++ computes them as int.
struct Identity {
  template <class V>
  static PYCCL_INLINE V before(V value) {
    return value;
  }
  template <class V>
  static PYCCL_INLINE V after(V value) {
    return value;
  }
};

struct Sum : Identity {
  template <class V>
  static PYCCL_INLINE V combine(V a, V b) {
    return static_cast<V>(a + b);
  }
};

struct Product : Identity {
  template <class V>
  static PYCCL_INLINE V combine(V a, V b) {
    if constexpr (std::is_integral_v<V>) {
      return static_cast<V>(1u * a * b);  // as int, the product of two u16 could overflow
    } else {
      return a * b;
    }
  }
};

struct Min : Identity {
  template <class V>
  static PYCCL_INLINE V combine(V a, V b) {
    return a < b ? a : b;
  }
};

struct Max : Identity {
  template <class V>
  static PYCCL_INLINE V combine(V a, V b) {
    return a > b ? a : b;
  }
};

// Both orders of a comparison agree except where one operand is NaN, which comes out of one of
// them, and for zeros of unlike sign. The union of their bits is then a NaN, and -0.
template <class Bits>
struct FloatingMin : Identity {
  template <class V>
  static PYCCL_INLINE V combine(V a, V b) {
    using BitLanes = Lanes<Bits, sizeof(V) / sizeof(Bits)>;
    const V left = a < b ? a : b;
    const V right = b < a ? b : a;
    return bits_as<V>(bits_as<BitLanes>(left) | bits_as<BitLanes>(right));
  }
};

template <class Bits>
struct FloatingMax : FloatingMin<Bits> {
  template <class V>
  static PYCCL_INLINE V before(V value) {
    return -value;
  }
  template <class V>
  static PYCCL_INLINE V after(V value) {
    return -value;
  }
};

struct And : Identity {
  template <class V>
  static PYCCL_INLINE V combine(V a, V b) {
    return static_cast<V>(a & b);
  }
};

struct Or : Identity {
  template <class V>
  static PYCCL_INLINE V combine(V a, V b) {
    return static_cast<V>(a | b);
  }
};

struct Xor : Identity {
  template <class V>
  static PYCCL_INLINE V combine(V a, V b) {
    return static_cast<V>(a ^ b);
  }
};

template <class Format, class Operator, bool weighted>
class Fold {
 public:
  static void run(const FoldCall& call) {
    const std::size_t size = call.count * sizeof(Element);
    std::size_t offset = unaligned_head(call.destination, size);
    if (offset > 0) fold_part(call, 0, offset);
    for (; offset + block_bytes <= size; offset += block_bytes) {
      const auto load_at = [&](const std::byte* source) { return load(source + offset); };
      store(call.destination + offset, fold(call, load_at));
    }
    if (offset < size) fold_part(call, offset, size - offset);
  }

 private:
  using Element = typename Format::Element;
  using Scalar = typename Format::Scalar;
  using Stored = typename Format::Stored;
  using Working = typename Format::Working;

  // Enough independent work to hide the latency of loads and additions, and registers left over.
  static constexpr std::size_t part_count = 4;
  static constexpr std::size_t block_bytes = part_count / Format::parts * sizeof(Stored);

  struct Block {
    Working part[part_count];
  };

  // Vectors that straddle cache lines cost a third of the speed, and large arrays usually begin 16
  // bytes into a page: where it pays, the destination's first vectors are set apart.
  static std::size_t unaligned_head(const std::byte* destination, std::size_t size) {
    constexpr std::size_t cache_line = 64;
    constexpr std::size_t worthwhile = 4096;
    const std::size_t head = -reinterpret_cast<std::uintptr_t>(destination) % cache_line;
    if (head > block_bytes || size < worthwhile || head % sizeof(Element) != 0) return 0;
    return head;
  }

  // At most a block, by way of buffers that may be read and written whole.
  static void fold_part(const FoldCall& call, std::size_t offset, std::size_t size) {
    std::byte buffer[block_bytes] = {};
    const Block block = fold(call, [&](const std::byte* source) {
      std::memcpy(buffer, source + offset, size);
      return load(buffer);
    });
    store(buffer, block);
    std::memcpy(call.destination + offset, buffer, size);
  }

  static PYCCL_INLINE Block load(const std::byte* from) {
    Block block;
    for (std::size_t i = 0; i < part_count; i += Format::parts) {
      Stored stored;
      std::memcpy(&stored, from, sizeof(Stored));
      Format::widen(stored, block.part + i);
      from += sizeof(Stored);
    }
    for (Working& part : block.part) part = Operator::before(part);
    return block;
  }

  static PYCCL_INLINE void store(std::byte* to, Block block) {
    for (Working& part : block.part) part = Operator::after(part);
    for (std::size_t i = 0; i < part_count; i += Format::parts) {
      const Stored stored = Format::narrow(block.part + i);
      std::memcpy(to, &stored, sizeof(Stored));
      to += sizeof(Stored);
    }
  }

  template <class Load>
  static PYCCL_INLINE Block fold(const FoldCall& call, Load load_at) {
    Block block{};
    std::size_t source = 0;
    if constexpr (weighted) {
      while (source < call.source_count && weight(call, source) == 0) ++source;
      if (source == call.source_count) return block;
    }
    block = contribution(call, source, load_at);
    for (++source; source < call.source_count; ++source) {
      if constexpr (weighted) {
        if (weight(call, source) == 0) continue;
      }
      const Block next = contribution(call, source, load_at);
      for (std::size_t i = 0; i < part_count; ++i) {
        block.part[i] = Operator::combine(block.part[i], next.part[i]);
      }
    }
    if constexpr (std::is_floating_point_v<Scalar>) divide(call, block);
    return block;
  }

  template <class Load>
  static PYCCL_INLINE Block contribution(const FoldCall& call, std::size_t source, Load load_at) {
    Block block = load_at(call.sources[source]);
    if constexpr (weighted) {
      const Scalar factor = weight(call, source);
      for (Working& part : block.part) part = part * factor;
    }
    return block;
  }

  static PYCCL_INLINE void divide(const FoldCall& call, Block& block) {
    if (call.divisor == 1) return;
    if (call.exact_reciprocal) {
      const auto factor = static_cast<Scalar>(1 / call.divisor);
      for (Working& part : block.part) part = part * factor;
    } else {
      const auto divisor = static_cast<Scalar>(call.divisor);
      for (Working& part : block.part) part = part / divisor;
    }
  }

  static PYCCL_INLINE Scalar weight(const FoldCall& call, std::size_t source) {
    return static_cast<Scalar>(call.weights[source]);
  }
};

template <class Format, class Operator>
void fold_plain(const FoldArguments& arguments) {
  constexpr bool floating = std::is_floating_point_v<typename Format::Scalar>;
  run_fold(arguments, {&Fold<Format, Operator, false>::run, nullptr, floating});
}

template <class Format>
void fold_weighted(const FoldArguments& arguments) {
  run_fold(arguments, {&Fold<Format, Sum, false>::run, &Fold<Format, Sum, true>::run, true});
}

template <class Format, class Bits = std::uint32_t>
constexpr void fill_floating(FoldFunction (&row)[PYCCL_REDOP_COUNT]) {
  row[PYCCL_SUM] = &fold_weighted<Format>;
  row[PYCCL_AVG] = &fold_weighted<Format>;
  row[PYCCL_PROD] = &fold_plain<Format, Product>;
  row[PYCCL_MIN] = &fold_plain<Format, FloatingMin<Bits>>;
  row[PYCCL_MAX] = &fold_plain<Format, FloatingMax<Bits>>;
}

// Wrapping arithmetic and bit operations are the same for both signs.
template <class T>
constexpr void fill_integer(FoldFunction (&row)[PYCCL_REDOP_COUNT]) {
  using Unsigned = Plain<std::make_unsigned_t<T>>;
  row[PYCCL_SUM] = &fold_plain<Unsigned, Sum>;
  row[PYCCL_PROD] = &fold_plain<Unsigned, Product>;
  row[PYCCL_MIN] = &fold_plain<Plain<T>, Min>;
  row[PYCCL_MAX] = &fold_plain<Plain<T>, Max>;
  row[PYCCL_BAND] = &fold_plain<Unsigned, And>;
  row[PYCCL_BOR] = &fold_plain<Unsigned, Or>;
  row[PYCCL_BXOR] = &fold_plain<Unsigned, Xor>;
}

constexpr void fill_folds(Target& target) {
  fill_floating<Plain<float>>(target.fold[PYCCL_F32]);
  fill_floating<Plain<double>, std::uint64_t>(target.fold[PYCCL_F64]);
  fill_floating<Half>(target.fold[PYCCL_F16]);
  fill_floating<Brain>(target.fold[PYCCL_BF16]);
  fill_integer<std::int8_t>(target.fold[PYCCL_I8]);
  fill_integer<std::int16_t>(target.fold[PYCCL_I16]);
  fill_integer<std::int32_t>(target.fold[PYCCL_I32]);
  fill_integer<std::int64_t>(target.fold[PYCCL_I64]);
  fill_integer<std::uint8_t>(target.fold[PYCCL_U8]);
  fill_integer<std::uint16_t>(target.fold[PYCCL_U16]);
  fill_integer<std::uint32_t>(target.fold[PYCCL_U32]);
  fill_integer<std::uint64_t>(target.fold[PYCCL_U64]);
}

}  // namespace
}  // namespace pyccl::kernels
