// An element as the expression that made it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.hpp"
#include "base/prng.hpp"

namespace pyccl::collectives {

// The hash stands for the whole tree of folds, so two symbols with one hash have the same bits
// whatever the numbers are. What is stored is rounded: a sum that has been in memory differs from
// the same one in the middle of a fold, and a weighted input from one weighted in a fold.
struct Symbol {
  std::uint64_t hash = 0;
  std::uint64_t at = 0;     // place in the inputs that it is made of
  std::uint32_t ranks = 0;  // whose contributions are in it, a bit for each; 0: there is nothing
  bool weighted = false;
  bool final = false;
};

using Buffer = std::vector<Symbol>;

inline std::uint64_t mixed(std::uint64_t x, std::uint64_t y) {
  std::uint64_t z = x * 0x9e3779b97f4a7c15ull + y;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

inline Symbol input_symbol(Rank rank, std::uint64_t at) {
  return {mixed(static_cast<std::uint64_t>(rank) + 1, at), at, 1u << rank, false, false};
}

// The input times the rank's weight, as it is stored.
inline Symbol weighted_symbol(Symbol input) {
  input.hash = mixed(input.hash, 1);
  input.weighted = true;
  return input;
}

// The left-to-right fold of several; why it can't be, or null.
class SymbolFold {
 public:
  // `raw`: the fold applies the weight.
  const char* add(const Symbol& next, bool raw) {
    if (next.ranks == 0) return "a value that nobody made";
    if (next.weighted == raw) return "a weight is missing or applied twice";
    if (next.final) return "a final value is folded again";
    if ((sum_.ranks & next.ranks) != 0) return "a contribution is folded twice";
    if (sum_.ranks != 0 && sum_.at != next.at) return "elements of different places are folded";
    sum_ = {mixed(sum_.hash, next.hash), next.at, sum_.ranks | next.ranks, true, false};
    return nullptr;
  }
  Symbol stored(bool final) const {
    Symbol symbol = sum_;
    symbol.hash = mixed(symbol.hash, final ? 3 : 2);
    symbol.final = final;
    return symbol;
  }

 private:
  Symbol sum_;
};

}  // namespace pyccl::collectives
