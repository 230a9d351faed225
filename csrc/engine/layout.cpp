// Counts, shares and addresses; see layout.hpp.
#include "engine/layout.hpp"

#include <algorithm>
#include <numeric>
#include <string>

namespace pyccl::engine {
namespace {

using collectives::Kind;

std::uint64_t sum_of(const std::vector<std::uint64_t>& shares) {
  return std::accumulate(shares.begin(), shares.end(), std::uint64_t{0});
}

bool overlap(const std::byte* a, std::uint64_t a_bytes, const std::byte* b, std::uint64_t b_bytes) {
  return a_bytes > 0 && b_bytes > 0 && a < b + b_bytes && b < a + a_bytes;
}

// Of one array, for one rank of a group.
class ArrayLayout {
 public:
  ArrayLayout(const Request& request, const Array& array, Rank self, Rank world)
      : request_(request),
        array_(array),
        self_(self),
        world_(static_cast<std::uint64_t>(world)),
        root_(request.root == self) {}

  std::uint64_t share() const { return described_count(request_, array_, root_); }

  std::uint64_t share_of(std::uint64_t rank) const {
    return request_.shares.empty() ? share() : request_.shares[rank];
  }

  std::uint64_t whole() const {
    return request_.shares.empty() ? share() * world_ : sum_of(request_.shares);
  }

  std::uint64_t begin_of(std::uint64_t rank) const {
    if (request_.shares.empty()) return share() * rank;
    const auto end = request_.shares.begin() + static_cast<std::ptrdiff_t>(rank);
    return std::accumulate(request_.shares.begin(), end, std::uint64_t{0});
  }

  // Elements that the arrays must have.
  std::uint64_t input_wanted() const {
    switch (request_.kind) {
      case Kind::all_gather:
      case Kind::gather: return share_of(static_cast<std::uint64_t>(self_));
      case Kind::reduce_scatter: return whole();
      case Kind::scatter: return root_ ? whole() : array_.input_count;
      case Kind::broadcast: return root_ ? share() : array_.input_count;
      case Kind::send: return self_ == 0 ? share() : 0;
      case Kind::all_to_all:
        return request_.send_shares.empty() ? share() : sum_of(request_.send_shares);
      default: return share();
    }
  }

  std::uint64_t output_wanted() const {
    switch (request_.kind) {
      case Kind::all_gather: return whole();
      case Kind::gather: return root_ ? whole() : 0;
      case Kind::reduce_scatter:
      case Kind::scatter: return share_of(static_cast<std::uint64_t>(self_));
      case Kind::reduce: return root_ ? share() : 0;
      case Kind::send: return self_ == 1 ? share() : 0;
      case Kind::all_to_all:
        return request_.receive_shares.empty() ? share() : sum_of(request_.receive_shares);
      default: return share();
    }
  }

 private:
  const Request& request_;
  const Array& array_;
  Rank self_;
  std::uint64_t world_;
  bool root_;
};

std::string count_text(std::uint64_t count, const char* what, std::uint64_t wanted) {
  return std::to_string(count) + " elements of " + what + ", but " + std::to_string(wanted) +
         " are wanted";
}

Status shares_fit(const Request& request, Rank self, Rank world) {
  const auto members = static_cast<std::size_t>(world);
  const auto wrong = [&](const char* name, const std::vector<std::uint64_t>& shares) {
    return Status(Code::invalid_argument, std::string(collectives::name_of(request.kind)) + ": " +
                                              name + " has " + std::to_string(shares.size()) +
                                              " counts for " + std::to_string(world) + " members");
  };
  if (!request.shares.empty() && request.shares.size() != members) {
    return wrong("counts", request.shares);
  }
  if (request.send_shares.empty() && request.receive_shares.empty()) return {};
  if (request.send_shares.size() != members) return wrong("send_counts", request.send_shares);
  if (request.receive_shares.size() != members) return wrong("recv_counts", request.receive_shares);
  const auto own = static_cast<std::size_t>(self);
  if (request.send_shares[own] != request.receive_shares[own]) {
    return Status(Code::invalid_argument, "rank " + std::to_string(self) + " sends itself " +
                                              std::to_string(request.send_shares[own]) +
                                              " elements and receives " +
                                              std::to_string(request.receive_shares[own]));
  }
  return {};
}

bool has_root(Kind kind) {
  return kind == Kind::broadcast || kind == Kind::reduce || kind == Kind::gather ||
         kind == Kind::scatter;
}

// The arrays of one type, brought into the order of the plan's buffers.
class PartBuilder {
 public:
  PartBuilder(const Request& request, kernels::DataType dtype, Rank self, Rank world)
      : request_(request),
        self_(self),
        world_(static_cast<std::size_t>(world)),
        root_(request.root == self),
        bytes_(kernels::size_of(dtype)),
        block_(request.quantization.on() ? request.quantization.format.block : 1) {
    for (const Array& array : request.arrays) {
      if (array.dtype == dtype) arrays_.push_back(&array);
    }
    layout_.shape.world = world;
    layout_.shape.element_bytes =
        block_ == 1 ? bytes_ : kernels::block_bytes(request.quantization.format);
    layout_.inputs = layout_.results = RunList(block_ * bytes_);
    layout_.shape.root = std::max<Rank>(request.root, 0);
  }

  PartLayout build() {
    fill_shape();
    fill_runs();
    fill_overlap();
    return std::move(layout_);
  }

 private:
  ArrayLayout of(const Array& array) const {
    return {request_, array, self_, static_cast<Rank>(world_)};
  }

  void fill_shape() {
    collectives::Shape& shape = layout_.shape;
    for (const Array* array : arrays_) shape.count += blocks(of(*array).share());
    const auto equal = [&] { return std::vector<std::uint64_t>(world_, shape.count); };
    const auto uneven = [&] {
      std::vector<std::uint64_t> shares = request_.shares;
      for (std::uint64_t& share : shares) share = blocks(share);
      return shares;
    };
    const auto with = [&](std::uint64_t count) {
      std::vector<std::uint64_t> shares(world_);
      shares[1 - static_cast<std::size_t>(self_)] = count;
      return shares;
    };
    switch (request_.kind) {
      case Kind::all_gather:
      case Kind::gather:
      case Kind::reduce_scatter:
      case Kind::scatter: shape.shares = request_.shares.empty() ? equal() : uneven(); break;
      case Kind::all_to_all: {
        const std::vector<std::uint64_t> even(world_, shape.count / world_);
        shape.sends = request_.send_shares.empty() ? even : request_.send_shares;
        shape.receives = request_.receive_shares.empty() ? even : request_.receive_shares;
        break;
      }
      case Kind::send:
        shape.sends = with(self_ == 0 ? shape.count : 0);
        shape.receives = with(self_ == 1 ? shape.count : 0);
        break;
      case Kind::exchange: shape.sends = shape.receives = with(shape.count); break;
      default: break;
    }
  }

  std::uint64_t blocks(std::uint64_t count) const { return (count + block_ - 1) / block_; }

  void add(RunList& list, const std::byte* memory, std::uint64_t begin, std::uint64_t count,
           bool joins) {
    auto* at = const_cast<std::byte*>(memory) + begin * bytes_;
    list.add(at, count * bytes_, joins);
  }

  // What a rank has of the whole, by rank; else the arrays one behind the other.
  void add_all(RunList& list, bool output, bool by_rank, bool joins) {
    const std::size_t ranks = by_rank ? world_ : 1;
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      for (const Array* array : arrays_) {
        const std::byte* memory = output ? array->output : array->input;
        const ArrayLayout each = of(*array);
        const std::uint64_t count = output ? each.output_wanted() : each.input_wanted();
        const std::uint64_t begin = by_rank ? begin_of(each, rank, output) : 0;
        const std::uint64_t end = by_rank ? begin_of(each, rank + 1, output) : count;
        add(list, memory, begin, end - begin, joins);
      }
    }
  }

  std::uint64_t begin_of(const ArrayLayout& array, std::size_t rank, bool output) const {
    if (request_.kind != Kind::all_to_all) return array.begin_of(rank);
    const auto& shares = output ? request_.receive_shares : request_.send_shares;
    if (shares.empty()) return array.share() / world_ * rank;
    return std::accumulate(shares.begin(), shares.begin() + static_cast<std::ptrdiff_t>(rank),
                           std::uint64_t{0});
  }

  // Whether this rank's input counts.
  bool takes_input() const {
    const Kind kind = request_.kind;
    if (kind == Kind::broadcast || kind == Kind::scatter) return root_;
    return kind != Kind::send || self_ == 0;
  }

  void fill_runs() {
    const Kind kind = request_.kind;
    const bool gives_output = kind == Kind::reduce || kind == Kind::gather ? root_
                              : kind == Kind::send                         ? self_ == 1
                                                                           : true;
    const bool cut_input =
        kind == Kind::reduce_scatter || kind == Kind::scatter || kind == Kind::all_to_all;
    const bool cut_output =
        kind == Kind::all_gather || kind == Kind::gather || kind == Kind::all_to_all;
    const bool same_places =
        kind == Kind::all_reduce || kind == Kind::reduce || kind == Kind::broadcast;
    if (takes_input() && request_.input_pieces.empty()) {
      add_all(layout_.inputs, false, cut_input, !same_places);
    }
    for (const ByteView piece : request_.input_pieces) {
      layout_.inputs.add(const_cast<std::byte*>(piece.data()), piece.size(), true);
    }
    if (gives_output) add_all(layout_.results, true, cut_output, !same_places);
    if (same_places && takes_input() && gives_output) layout_.overlap = Overlap::paired;
  }

  void fill_overlap() {
    if (layout_.overlap == Overlap::paired || !takes_input()) return;
    if (!request_.input_pieces.empty()) return;  // which are apart (request.cpp)
    for (const Array* array : arrays_) {
      const ArrayLayout each = of(*array);
      const std::uint64_t input_bytes = each.input_wanted() * bytes_;
      const std::uint64_t output_bytes = each.output_wanted() * bytes_;
      if (!overlap(array->input, input_bytes, array->output, output_bytes)) continue;
      const bool gathers = request_.kind == Kind::all_gather || request_.kind == Kind::gather;
      const std::byte* own =
          array->output + each.begin_of(static_cast<std::uint64_t>(self_)) * bytes_;
      // Quantized, the own share in the whole is rounded, too.
      if (gathers && array->input == own && block_ == 1) continue;
      layout_.overlap = Overlap::deferred;
    }
  }

  const Request& request_;
  Rank self_;
  std::size_t world_;
  bool root_;
  std::uint64_t bytes_;
  std::uint64_t block_;
  std::vector<const Array*> arrays_;
  PartLayout layout_;
};

}  // namespace

bool reduces(Kind kind) {
  return kind == Kind::all_reduce || kind == Kind::reduce_scatter || kind == Kind::reduce;
}

bool cut_by_rank(const Request& request) {
  return request.kind == Kind::reduce_scatter || request.kind == Kind::scatter ||
         request.kind == Kind::all_to_all || !request.shares.empty();
}

std::vector<kernels::DataType> types_of(const Request& request) {
  std::vector<kernels::DataType> types;
  for (const Array& array : request.arrays) {
    if (std::ranges::find(types, array.dtype) == types.end()) types.push_back(array.dtype);
  }
  return types;
}

std::uint64_t described_count(const Request& request, const Array& array, bool root) {
  switch (request.kind) {
    case Kind::reduce_scatter:
    case Kind::scatter: return array.output_count;
    case Kind::broadcast: return root ? array.input_count : array.output_count;
    case Kind::send: return std::max(array.input_count, array.output_count);
    default: return array.input_count;
  }
}

Status fits(const Request& request, Rank self, Rank world) {
  const std::string name(collectives::name_of(request.kind));
  const auto refuse = [&](const std::string& why) {
    return Status(Code::invalid_argument, name + " at rank " + std::to_string(self) + " of " +
                                              std::to_string(world) + ": " + why);
  };
  if (has_root(request.kind) && (request.root < 0 || request.root >= world)) {
    return refuse("no such root, " + std::to_string(request.root));
  }
  if (const Status status = shares_fit(request, self, world); !status.ok()) return status;
  for (std::size_t i = 0; i < request.arrays.size(); ++i) {
    const Array& array = request.arrays[i];
    const ArrayLayout layout(request, array, self, world);
    const std::string array_name = "array " + std::to_string(i) + " has ";
    // Results may have room to spare where fewer members than there were are to do.
    const bool shrinks = (request.kind == Kind::all_gather || request.kind == Kind::gather) &&
                         request.on_loss == OnLoss::retry;
    const std::uint64_t output = layout.output_wanted();
    if (array.input_count != layout.input_wanted()) {
      return refuse(array_name + count_text(array.input_count, "input", layout.input_wanted()));
    }
    if (shrinks ? array.output_count < output : array.output_count != output) {
      return refuse(array_name + count_text(array.output_count, "output", output));
    }
    if (request.kind == Kind::all_to_all && request.send_shares.empty() &&
        array.input_count % static_cast<std::uint64_t>(world) != 0) {
      return refuse(array_name + std::to_string(array.input_count) +
                    " elements, which can't be divided equally");
    }
  }
  return {};
}

PartLayout lay_out(const Request& request, kernels::DataType dtype, Rank self, Rank world) {
  return PartBuilder(request, dtype, self, world).build();
}

}  // namespace pyccl::engine
