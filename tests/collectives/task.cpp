// Each collective's definition, element by element. Nothing here is shared with the plans, so that
// both can't be wrong in the same way.
#include "collectives/task.hpp"

#include <numeric>

namespace pyccl::collectives {
namespace {

std::uint64_t sum(const Counts& counts, std::size_t upto) {
  return std::accumulate(counts.begin(), counts.begin() + static_cast<std::ptrdiff_t>(upto),
                         std::uint64_t{0});
}

std::size_t index(Rank rank) { return static_cast<std::size_t>(rank); }

std::uint64_t whole(const Task& task) { return sum(task.shares, task.shares.size()); }
std::uint64_t begin_of(const Task& task, Rank rank) { return sum(task.shares, index(rank)); }

// What each rank has for `self`.
Counts incoming(const Task& task, Rank self) {
  Counts counts;
  for (const Counts& row : task.amounts) counts.push_back(row[index(self)]);
  return counts;
}

void append(std::vector<Origin>& origins, bool folded, Rank from, std::uint64_t begin,
            std::uint64_t size) {
  for (std::uint64_t i = 0; i < size; ++i) origins.push_back({folded, from, begin + i});
}

}  // namespace

std::uint64_t input_count(const Task& task, Rank rank) {
  switch (task.kind) {
    case Kind::all_reduce:
    case Kind::reduce: return task.count;
    case Kind::broadcast: return rank == task.root ? task.count : 0;
    case Kind::all_gather:
    case Kind::gather: return task.shares[index(rank)];
    case Kind::reduce_scatter: return whole(task);
    case Kind::scatter: return rank == task.root ? whole(task) : 0;
    case Kind::all_to_all:
    case Kind::send:
    case Kind::exchange: return sum(task.amounts[index(rank)], index(task.world));
    case Kind::barrier: break;
  }
  return 0;
}

std::uint64_t result_count(const Task& task, Rank rank) { return origins_of(task, rank).size(); }

std::vector<Origin> origins_of(const Task& task, Rank rank) {
  std::vector<Origin> origins;
  switch (task.kind) {
    case Kind::all_reduce: append(origins, true, 0, 0, task.count); break;
    case Kind::reduce:
      if (rank == task.root) append(origins, true, 0, 0, task.count);
      break;
    case Kind::broadcast: append(origins, false, task.root, 0, task.count); break;
    case Kind::reduce_scatter:
      append(origins, true, 0, begin_of(task, rank), task.shares[index(rank)]);
      break;
    case Kind::scatter:
      append(origins, false, task.root, begin_of(task, rank), task.shares[index(rank)]);
      break;
    case Kind::gather:
      if (rank != task.root) break;
      [[fallthrough]];
    case Kind::all_gather:
      for (Rank from = 0; from < task.world; ++from) {
        append(origins, false, from, 0, task.shares[index(from)]);
      }
      break;
    case Kind::all_to_all:
    case Kind::send:
    case Kind::exchange:
      for (Rank from = 0; from < task.world; ++from) {
        const Counts& row = task.amounts[index(from)];
        append(origins, false, from, sum(row, index(rank)), row[index(rank)]);
      }
      break;
    case Kind::barrier: break;
  }
  return origins;
}

std::optional<std::int64_t> in_place_shift(const Task& task, Rank rank) {
  const bool rooted = task.kind == Kind::broadcast || task.kind == Kind::reduce ||
                      task.kind == Kind::gather || task.kind == Kind::scatter;
  if (rooted && rank != task.root) return std::nullopt;
  switch (task.kind) {
    // The own share lies in the whole, which is the result or the input.
    case Kind::all_gather:
    case Kind::gather: return -static_cast<std::int64_t>(begin_of(task, rank));
    case Kind::reduce_scatter:
    case Kind::scatter: return static_cast<std::int64_t>(begin_of(task, rank));
    default: return 0;
  }
}

Shape shape_of(const Task& task, Rank rank, std::uint64_t element_bytes) {
  Shape shape;
  shape.world = task.world;
  shape.element_bytes = element_bytes;
  shape.root = task.root;
  shape.count = task.count;
  shape.shares = task.shares;
  if (!task.amounts.empty()) {
    shape.sends = task.amounts[index(rank)];
    shape.receives = incoming(task, rank);
  }
  return shape;
}

}  // namespace pyccl::collectives
