// How the arrays of a call lie in the buffers of a plan: by kind of collective, rank and number of
// members. Arrays of one data type are one part; of a list, a rank's share consists of its shares
// of all arrays, one behind the other.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.hpp"
#include "collectives/select.hpp"
#include "engine/part_memory.hpp"
#include "engine/request.hpp"

namespace pyccl::engine {

bool reduces(collectives::Kind kind);
// Whether the caller's arrays are cut by rank, so that no other number of members can do.
bool cut_by_rank(const Request& request);

// The data types of the arrays, each once, in the order in which they come.
std::vector<kernels::DataType> types_of(const Request& request);

// Elements of an array as all members describe it: of the whole, or of one rank's share.
std::uint64_t described_count(const Request& request, const Array& array, bool root);

// Why the arrays do not fit a group of `world` members for its rank `self`; ok if they do.
Status fits(const Request& request, Rank self, Rank world);

struct PartLayout {
  collectives::Shape shape;
  RunList inputs;
  RunList results;
  Overlap overlap = Overlap::none;
};

// Of all arrays of one type; the request fits. Counts are of numbers, or of blocks of them where
// payloads are quantized: each array's share for a rank begins a new one.
PartLayout lay_out(const Request& request, kernels::DataType dtype, Rank self, Rank world);

}  // namespace pyccl::engine
