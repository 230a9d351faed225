// What happened, as a hash (same seed, same hash) and, if wanted, as text.
#pragma once

#include <cstdint>
#include <cstdio>
#include <deque>
#include <string>

#include "base/time.hpp"

namespace pyccl::sim {

class Trace {
 public:
  enum class Text { none, last, all };

  explicit Trace(Text text) : text_(text) {}

  void fold(std::uint64_t value) {
    hash_ = (hash_ ^ value) * 0x100000001b3ull;
    hash_ ^= hash_ >> 29;
  }

  bool wants_text() const { return text_ != Text::none; }

  void line(Time now, const std::string& text) {
    if (!wants_text()) return;
    char stamp[32];
    const auto micros = now.nanoseconds / 1000 - 1'000'000;
    std::snprintf(stamp, sizeof stamp, "%10.6f  ", static_cast<double>(micros) / 1e6);
    lines_.push_back(stamp + text);
    if (text_ == Text::all) {
      std::printf("%s\n", lines_.back().c_str());
      lines_.clear();
    } else if (lines_.size() > lines_max) {
      lines_.pop_front();
    }
  }

  std::uint64_t hash() const { return hash_; }
  const std::deque<std::string>& lines() const { return lines_; }

 private:
  static constexpr std::size_t lines_max = 200;
  Text text_;
  std::uint64_t hash_ = 0xcbf29ce484222325ull;
  std::deque<std::string> lines_;
};

}  // namespace pyccl::sim
