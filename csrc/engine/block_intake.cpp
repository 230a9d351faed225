// See block_intake.hpp.
#include "engine/block_intake.hpp"

#include <algorithm>
#include <utility>

#include "base/assert.hpp"
#include "base/mark.hpp"
#include "kernels/digest.hpp"

namespace pyccl::engine {

void BlockIntake::expect(std::uint64_t revision, const Digest& content,
                         std::vector<Digest> blocks) {
  if (PYCCL_MUTANT("revision-before-its-bits")) state_.set_revision(revision);
  const bool keeps = PYCCL_MUTANT("staged-for-another-election") && !staged_.empty();
  if (content != content_ && !keeps) {
    staged_.assign(blocks.size(), nullptr);
    staging_.clear();
    staging_used_ = 0;
  }
  revision_ = revision;
  content_ = content;
  wanted_ = std::move(blocks);
  compare();
}

void BlockIntake::compare() {
  lacks_.assign(wanted_.size(), false);
  lacking_bytes_ = 0;
  std::uint64_t staged_bytes = 0;
  for (std::size_t i = 0; i < wanted_.size(); ++i) {
    const bool staged = staged_[i] != nullptr;
    lacks_[i] = state_.block_digests()[i] != wanted_[i] && !staged;
    if (lacks_[i]) lacking_bytes_ += state_.block_bytes()[i];
    if (staged) staged_bytes += state_.block_bytes()[i];
  }
  changes_ = changes_ || lacking_bytes_ > 0;
  // What has been written in part stays so, however little is lacking.
  stages_ = state_.whole() && staged_bytes + lacking_bytes_ <= limits_.staged_bytes_max;
}

void BlockIntake::reserve() {
  if (lacking_bytes_ == 0) return;
  if (!stages_) {
    const std::uint64_t window =
        std::max<std::uint64_t>(limits_.window_bytes, state_.block_bytes_max());
    if (windows_.size() == 0) windows_ = LargeBuffer(window * limits_.windows);
    return;
  }
  // What has come to nothing in an attempt before is free again.
  if (std::ranges::all_of(staged_, [](const std::byte* each) { return each == nullptr; })) {
    staging_.clear();
    staging_used_ = 0;
  }
  const bool suffices =
      !staging_.empty() && staging_.back().size() - staging_used_ >= lacking_bytes_;
  if (suffices) return;
  staging_.emplace_back(lacking_bytes_);
  staging_used_ = 0;
}

ByteView BlockIntake::block(std::size_t index) const {
  if (staged_[index] == nullptr) return state_.block(index);
  return {staged_[index], state_.block_bytes()[index]};
}

std::byte* BlockIntake::window(std::size_t index, std::uint64_t bytes) {
  if (bytes == 0) return nullptr;
  if (!stages_) {
    const std::size_t each = windows_.size() / limits_.windows;
    PYCCL_ASSERT(bytes <= each);
    return windows_.data() + index % limits_.windows * each;
  }
  PYCCL_ASSERT(!staging_.empty() && staging_used_ + bytes <= staging_.back().size());
  return staging_.back().data() + std::exchange(staging_used_, staging_used_ + bytes);
}

bool BlockIntake::take(std::size_t index, const std::byte* bytes) {
  if (!lacks_[index]) return true;
  const ByteView came(bytes, state_.block_bytes()[index]);
  if (kernels::digest_of(came) != wanted_[index] && !PYCCL_MUTANT("unverified-blocks")) {
    PYCCL_MARK("wrong bits refused");
    return false;
  }
  if (stages_ && !PYCCL_MUTANT("staged-blocks-written")) {
    staged_[index] = bytes;
  } else {
    PYCCL_MARK("written as it comes");
    state_.overwrite(index, bytes, wanted_[index]);
  }
  lacks_[index] = false;
  lacking_bytes_ -= came.size();
  return true;
}

void BlockIntake::settle() {
  if (lacking_bytes_ > 0 || !changes_) return;
  for (std::size_t i = 0; i < staged_.size(); ++i) {
    if (staged_[i] != nullptr) state_.overwrite(i, staged_[i], wanted_[i]);
  }
  staged_.assign(staged_.size(), nullptr);
  staging_.clear();
  state_.complete(revision_);
  changes_ = false;
}

}  // namespace pyccl::engine
