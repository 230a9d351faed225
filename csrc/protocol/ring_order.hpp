// An order of the members of a group round a ring, by what it costs to go from one to another.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace pyccl::protocol {

// What it costs between any two of n places, the same both ways.
class PairCosts {
 public:
  explicit PairCosts(std::size_t places) : places_(places), costs_(places * places) {}
  std::size_t places() const { return places_; }
  std::uint64_t at(std::size_t a, std::size_t b) const { return costs_[a * places_ + b]; }
  void set(std::size_t a, std::size_t b, std::uint64_t cost) {
    costs_[a * places_ + b] = costs_[b * places_ + a] = cost;
  }

 private:
  std::size_t places_;
  std::vector<std::uint64_t> costs_;
};

// A permutation of all places that costs less than `begin`, or `begin`, if there is none that costs
// a quarter less: an order is not worth a change for little. It is found by reversing stretches
// until no such step helps any more (2-opt), so it is good, not always the best.
std::vector<std::size_t> cheaper_ring(const PairCosts& costs, std::vector<std::size_t> begin);

}  // namespace pyccl::protocol
