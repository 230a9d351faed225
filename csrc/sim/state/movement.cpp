// See movement.hpp.
#include "sim/state/movement.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/assert.hpp"

namespace pyccl::sim {
namespace {

using engine::Request;

Bytes input_of(const Request& request) {
  const engine::Array& array = request.arrays.front();
  if (request.input_pieces.empty()) return {array.input, array.input + array.input_count};
  Bytes all;
  for (const ByteView piece : request.input_pieces)
    all.insert(all.end(), piece.begin(), piece.end());
  PYCCL_ASSERT(all.size() == array.input_count);
  return all;
}

std::uint64_t before(const std::vector<std::uint64_t>& shares, std::size_t rank) {
  return std::accumulate(shares.begin(), shares.begin() + static_cast<std::ptrdiff_t>(rank),
                         std::uint64_t{0});
}

void put(const Request& request, std::uint64_t at, ByteView bytes) {
  const engine::Array& array = request.arrays.front();
  PYCCL_ASSERT(at + bytes.size() <= array.output_count);
  if (!bytes.empty()) std::memcpy(array.output + at, bytes.data(), bytes.size());
}

}  // namespace

void move_bytes(const std::vector<const Request*>& requests) {
  std::vector<Bytes> inputs;
  for (const Request* request : requests) inputs.push_back(input_of(*request));
  for (std::size_t to = 0; to < requests.size(); ++to) {
    const Request& request = *requests[to];
    if (request.kind == collectives::Kind::broadcast) {
      put(request, 0, inputs[static_cast<std::size_t>(request.root)]);
      continue;
    }
    std::uint64_t at = 0;
    for (std::size_t from = 0; from < requests.size(); ++from) {
      ByteView bytes = inputs[from];
      if (request.kind == collectives::Kind::all_to_all) {
        const auto& shares = requests[from]->send_shares;
        bytes = bytes.subspan(before(shares, to), shares[to]);
      }
      put(request, at, bytes);
      at += bytes.size();
    }
  }
}

}  // namespace pyccl::sim
