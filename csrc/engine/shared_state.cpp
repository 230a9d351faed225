// Blocks and their digests; see shared_state.hpp.
#include "engine/shared_state.hpp"

#include <algorithm>

#include "base/assert.hpp"
#include "engine/state_schema.hpp"
#include "kernels/copy.hpp"
#include "kernels/digest.hpp"
#include "kernels/shuffle.hpp"

namespace pyccl::engine {
namespace {

// Of one state: what its members tell each other before any data must fit an operation, and ranks
// and blocks are counted in 32 bits.
constexpr std::size_t tensors_max = 1 << 20;
constexpr std::uint64_t blocks_max = 1 << 28;
constexpr std::size_t name_bytes_max = 4096;
constexpr std::size_t schema_bytes_max = 256 << 20;
constexpr std::size_t dimensions_max = 64;

Status refuse(std::string why) { return {Code::invalid_argument, std::move(why)}; }

Status check_tensor(const Tensor& tensor) {
  const std::string name = "tensor '" + tensor.name + "'";
  if (tensor.name.size() > name_bytes_max || tensor.dtype.size() > 255) {
    return refuse("the name of a tensor has more than " + std::to_string(name_bytes_max) +
                  " bytes, or that of its type more than 255");
  }
  if (tensor.shape.size() > dimensions_max) {
    return refuse(name + " has more than " + std::to_string(dimensions_max) + " dimensions");
  }
  if (tensor.bytes > 0 && tensor.memory == nullptr) return refuse(name + " has no memory");
  return {};
}

// By size and shape, since the type may have any name.
std::uint8_t width_of(const Tensor& tensor) {
  std::uint64_t count = 1;
  for (const std::uint64_t dimension : tensor.shape) count *= dimension;
  const std::uint64_t width = count == 0 ? 1 : tensor.bytes / count;
  return static_cast<std::uint8_t>(width >= 1 && width <= kernels::shuffle_width_max ? width : 1);
}

Status check_apart(const std::vector<Tensor>& tensors) {
  std::vector<const Tensor*> by_place;
  for (const Tensor& tensor : tensors) {
    if (tensor.bytes > 0) by_place.push_back(&tensor);
  }
  std::ranges::sort(by_place, {}, &Tensor::memory);
  for (std::size_t i = 1; i < by_place.size(); ++i) {
    const Tensor& before = *by_place[i - 1];
    if (before.memory + before.bytes <= by_place[i]->memory) continue;
    return refuse("tensor '" + before.name + "' and tensor '" + by_place[i]->name +
                  "' share memory: name one of them only");
  }
  return {};
}

}  // namespace

Result<SharedState> SharedState::make(std::vector<Tensor> tensors, bool strict,
                                      std::uint32_t block_bytes_max) {
  PYCCL_ASSERT(block_bytes_max > 0);
  if (tensors.size() > tensors_max) {
    return refuse("more than " + std::to_string(tensors_max) + " tensors in one state");
  }
  std::ranges::sort(tensors, {}, &Tensor::name);
  for (const Tensor& tensor : tensors) {
    if (Status status = check_tensor(tensor); !status.ok()) return status;
  }
  const auto twice = std::ranges::adjacent_find(tensors, {}, &Tensor::name);
  if (twice != tensors.end()) return refuse("two tensors are called '" + twice->name + "'");
  if (Status status = check_apart(tensors); !status.ok()) return status;
  std::uint64_t blocks = 0;
  for (const Tensor& tensor : tensors) blocks += tensor.bytes / block_bytes_max + 1;
  if (blocks > blocks_max) return refuse("a state has more bytes than any memory");

  SharedState state;
  state.tensors_ = std::move(tensors);
  state.strict_ = strict;
  state.block_bytes_max_ = block_bytes_max;
  state.schema_ = encode_schema(state.tensors_, strict);
  if (state.schema_.size() > schema_bytes_max) {
    return refuse("the names and shapes of a state have more than " +
                  std::to_string(schema_bytes_max) + " bytes");
  }
  state.schema_digest_ = kernels::digest_of(state.schema_);
  state.divide();
  return state;
}

void SharedState::divide() {
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    first_blocks_.push_back(static_cast<std::uint32_t>(block_bytes_.size()));
    widths_.push_back(width_of(tensors_[i]));
    for (std::uint64_t at = 0; at < tensors_[i].bytes; at += block_bytes_max_) {
      const auto size = std::min<std::uint64_t>(tensors_[i].bytes - at, block_bytes_max_);
      block_bytes_.push_back(static_cast<std::uint32_t>(size));
      tensor_of_.push_back(static_cast<std::uint32_t>(i));
    }
    bytes_ += tensors_[i].bytes;
  }
  block_digests_.resize(block_bytes_.size());
}

MutableByteView SharedState::block(std::size_t index) const {
  const std::uint32_t tensor = tensor_of_[index];
  const std::uint64_t at = (index - first_blocks_[tensor]) * std::uint64_t{block_bytes_max_};
  return {tensors_[tensor].memory + at, block_bytes_[index]};
}

void SharedState::digest_blocks(std::size_t first, std::size_t last) {
  for (std::size_t i = first; i < last; ++i) block_digests_[i] = kernels::digest_of(block(i));
}

Digest SharedState::digest_with(const std::vector<Digest>& blocks) const {
  PYCCL_ASSERT(blocks.size() == block_count());
  Bytes all((blocks.size() + 1) * digest_bytes);
  store(all.data(), schema_digest_);
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    store(all.data() + (i + 1) * digest_bytes, blocks[i]);
  }
  return kernels::digest_of(all);
}

void SharedState::overwrite(std::size_t index, const std::byte* bytes, const Digest& digest) {
  // Nobody looks at it soon, and it must not drive out of the cache what comes next.
  kernels::copy_streaming(block(index).data(), bytes, block_bytes_[index]);
  block_digests_[index] = digest;
  void_.resize(tensors_.size());
  void_[tensor_of_[index]] = true;
}

void SharedState::complete(std::uint64_t revision) {
  revision_ = revision;
  void_.clear();
}

void SharedState::set_revision(std::uint64_t revision) {
  revision_ = revision;
  void_.clear();
}

void SharedState::spoil() { void_.assign(std::max<std::size_t>(tensors_.size(), 1), true); }

std::vector<std::string> SharedState::void_tensors() const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(void_.size(), tensors_.size()); ++i) {
    if (void_[i]) names.push_back(tensors_[i].name);
  }
  return names;
}

std::optional<std::uint64_t> SharedState::next_revision() const {
  if (!last_synced_) return std::nullopt;
  return *last_synced_ + 1;
}

}  // namespace pyccl::engine
