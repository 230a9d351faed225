// A set of bytes, as disjoint ranges in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>

namespace pyccl::engine {

// Bytes [begin, end).
struct ByteRange {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t size() const { return end - begin; }
};

class ByteRanges {
 public:
  void add(ByteRange range) {
    if (range.size() == 0) return;
    auto next = ranges_.upper_bound(range.begin);
    if (next != ranges_.begin() && std::prev(next)->second >= range.begin) --next;
    while (next != ranges_.end() && next->first <= range.end) {
      range.begin = std::min(range.begin, next->first);
      range.end = std::max(range.end, next->second);
      next = ranges_.erase(next);
    }
    ranges_.emplace_hint(next, range.begin, range.end);
  }
  void clear() { ranges_.clear(); }
  bool empty() const { return ranges_.empty(); }

  bool covers(ByteRange range) const {
    const auto behind = ranges_.upper_bound(range.begin);
    return behind != ranges_.begin() && std::prev(behind)->second >= range.end;
  }
  bool meets(ByteRange range) const {
    const auto behind = ranges_.lower_bound(range.end);
    return behind != ranges_.begin() && std::prev(behind)->second > range.begin;
  }

  // Calls visit(ByteRange) for what of `range` is missing.
  template <class Visit>
  void for_each_gap(ByteRange range, Visit visit) const {
    auto next = ranges_.upper_bound(range.begin);
    if (next != ranges_.begin()) --next;
    for (; next != ranges_.end() && next->first < range.end; ++next) {
      if (next->first > range.begin) visit(ByteRange{range.begin, next->first});
      range.begin = std::max(range.begin, next->second);
    }
    if (range.begin < range.end) visit(range);
  }

  template <class Visit>
  void for_each(Visit visit) const {
    for (const auto& [begin, end] : ranges_) visit(ByteRange{begin, end});
  }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;  // begin to end; no two touch
};

}  // namespace pyccl::engine
