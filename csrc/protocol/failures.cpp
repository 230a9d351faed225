// Ranges grow at their ends only in the usual case: failures come in the order of their numbers.
#include "protocol/failures.hpp"

#include <algorithm>
#include <iterator>

#include "base/mark.hpp"
#include "protocol/limits.hpp"

namespace pyccl::protocol {

void Failures::add(OpKey op, const Status& status) {
  reasons_.insert_or_assign(op, status);
  if (reasons_.size() > operations_open_max) forget_oldest();
}

void Failures::forget_oldest() {
  const OpKey oldest = reasons_.begin()->first;
  reasons_.erase(reasons_.begin());
  Ranges& ranges = without_reason_[numbering(oldest)];
  const auto behind = ranges.upper_bound(oldest.seq);
  if (behind != ranges.begin() && std::prev(behind)->second >= oldest.seq) {
    std::uint32_t& end = std::prev(behind)->second;
    end = std::max(end, oldest.seq + 1);
  } else {
    ranges.emplace(oldest.seq, oldest.seq + 1);
  }
}

std::optional<Status> Failures::take(OpKey op) {
  if (const auto found = reasons_.find(op); found != reasons_.end()) {
    Status status = std::move(found->second);
    reasons_.erase(found);
    return status;
  }
  if (!without_reason(op)) return std::nullopt;
  PYCCL_MARK("posted long after the others had failed it");
  return Status(Code::timeout, "the other members gave this operation up long ago");
}

bool Failures::contains(OpKey op) const { return reasons_.contains(op) || without_reason(op); }

bool Failures::without_reason(OpKey op) const {
  const auto ranges = without_reason_.find(numbering(op));
  if (ranges == without_reason_.end()) return false;
  const auto behind = ranges->second.upper_bound(op.seq);
  return behind != ranges->second.begin() && std::prev(behind)->second > op.seq;
}

void Failures::drop_below(OpKey op) {
  reasons_.erase(reasons_.lower_bound({op.group, op.tag, 0}), reasons_.lower_bound(op));
  const auto ranges = without_reason_.find(numbering(op));
  if (ranges == without_reason_.end()) return;
  std::erase_if(ranges->second, [&](const auto& range) { return range.second <= op.seq; });
  if (ranges->second.empty()) without_reason_.erase(ranges);
}

void Failures::drop(GroupId group) {
  std::erase_if(reasons_, [&](const auto& entry) { return entry.first.group == group; });
  std::erase_if(without_reason_, [&](const auto& entry) { return entry.first.first == group; });
}

std::vector<NextSequence> Failures::ends(GroupId group) const {
  std::map<std::uint32_t, std::uint32_t> behind;
  for (const auto& [numbers, ranges] : without_reason_) {
    if (numbers.first == group) behind[numbers.second] = ranges.rbegin()->second;
  }
  for (const auto& [op, status] : reasons_) {
    if (op.group == group) behind[op.tag] = std::max(behind[op.tag], op.seq + 1);
  }
  std::vector<NextSequence> ends;
  for (const auto& [tag, seq] : behind) {
    if (ends.size() < tags_max) ends.push_back({group, tag, seq});
  }
  return ends;
}

}  // namespace pyccl::protocol
