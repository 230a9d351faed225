// Bytes that lie in pieces and are moved by counts: as they are, and compressed on their way. What
// arrives is what was sent, whatever arrives twice, broken off or again.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "engine/packed_data.hpp"
#include "ranks.hpp"

using namespace pyccl;
using namespace pyccl::engine;

namespace {

constexpr std::uint32_t segment_bytes = 4096;

// Each rank has some pieces for each other; how many, and how long, is drawn.
class Exchange {
 public:
  Exchange(Rank world, std::uint64_t seed, bool packable, bool compresses)
      : prng_(seed), world_(static_cast<std::size_t>(world)) {
    pieces_.resize(world_ * world_);
    for (auto& pieces : pieces_) {
      const std::uint64_t count = prng_.below(5);
      for (std::uint64_t i = 0; i < count; ++i) pieces.push_back(draw_piece());
    }
    for (std::size_t rank = 0; rank < world_; ++rank) add_request(rank, packable, compresses);
  }

  std::vector<Request> requests() const { return requests_; }

  void check_all() const {
    for (std::size_t to = 0; to < world_; ++to) {
      Bytes wanted;
      for (std::size_t from = 0; from < world_; ++from) {
        for (const Bytes& piece : pieces_[from * world_ + to]) {
          wanted.insert(wanted.end(), piece.begin(), piece.end());
        }
      }
      CHECK(outputs_[to] == wanted);
    }
  }

 private:
  // Numbers that have something in common, or nothing.
  Bytes draw_piece() {
    Bytes piece(prng_.chance(1, 2) ? prng_.below(40) : prng_.below(3 * segment_bytes));
    const bool noise = prng_.chance(1, 4);
    for (std::size_t i = 0; i < piece.size(); ++i) {
      piece[i] = static_cast<std::byte>(noise        ? prng_.below(256)
                                        : i % 4 == 3 ? 63
                                                     : prng_.below(9));
    }
    return piece;
  }

  void add_request(std::size_t rank, bool packable, bool compresses) {
    Request request;
    request.kind = collectives::Kind::all_to_all;
    request.on_loss = OnLoss::raise;
    request.packable = packable;
    Array array{.dtype = kernels::DataType::u8};
    for (std::size_t other = 0; other < world_; ++other) {
      std::uint64_t sends = 0;
      for (const Bytes& piece : pieces_[rank * world_ + other]) {
        request.input_pieces.emplace_back(piece);
        if (compresses) request.input_widths.push_back(4);
        sends += piece.size();
      }
      std::uint64_t receives = 0;
      for (const Bytes& piece : pieces_[other * world_ + rank]) receives += piece.size();
      request.send_shares.push_back(sends);
      request.receive_shares.push_back(receives);
      array.input_count += sends;
      array.output_count += receives;
    }
    outputs_.emplace_back(array.output_count, std::byte{0xee});
    array.output = outputs_.back().data();
    request.arrays.push_back(array);
    REQUIRE(check(request).ok());
    requests_.push_back(std::move(request));
  }

  Prng prng_;
  std::size_t world_;
  std::vector<std::vector<Bytes>> pieces_;  // by sender and receiver
  std::vector<Bytes> outputs_;
  std::vector<Request> requests_;
};

void commit(Operation& operation) {
  operation.commit();
  REQUIRE_FALSE(operation.publish(1));
}

}  // namespace

TEST_CASE("pieces by counts: what is moved arrives, compressed or not") {
  using collectives::Reach;
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    const bool packable = seed % 3 > 0;
    const bool compresses = seed % 3 == 2;
    const auto world = static_cast<Rank>(1 + seed % 4);
    const Exchange exchange(world, seed, packable, compresses);
    Ranks ranks(exchange.requests(), segment_bytes, seed,
                seed % 2 == 0 ? Reach::network : Reach::same_host);
    if (seed % 5 == 0) {
      ranks.begin(1);
      ranks.run(seed);  // broken off somewhere
      ranks.begin(2);
    } else {
      ranks.begin(1);
    }
    REQUIRE(ranks.run(100'000));
    for (Rank rank = 0; rank < world; ++rank) commit(ranks.operation(rank));
    exchange.check_all();
    CHECK(ranks.slots_out() == 0);
  }
}

TEST_CASE("pieces by counts: fewer bytes travel where they have something in common") {
  const Bytes alike(16 * segment_bytes, std::byte{7});
  Bytes output(alike.size());
  std::vector<Request> requests(2);
  for (Request& request : requests) {
    request.kind = collectives::Kind::all_to_all;
    request.on_loss = OnLoss::raise;
    request.packable = true;
  }
  requests[0].arrays.push_back({.dtype = kernels::DataType::u8, .input_count = alike.size()});
  requests[0].input_pieces = {alike};
  requests[0].input_widths = {4};
  requests[0].send_shares = {0, alike.size()};
  requests[0].receive_shares = {0, 0};
  requests[1].arrays.push_back(
      {.output = output.data(), .dtype = kernels::DataType::u8, .output_count = output.size()});
  requests[1].send_shares = {0, 0};
  requests[1].receive_shares = {alike.size(), 0};
  Ranks ranks(requests, segment_bytes, 1, collectives::Reach::network);
  ranks.begin(1);
  REQUIRE(ranks.run(10'000));
  for (Rank rank = 0; rank < 2; ++rank) commit(ranks.operation(rank));
  CHECK(output == alike);
  const OperationInfo info = ranks.operation(0).info({}, false);
  CHECK(info.bytes_sent < alike.size() / 20);
  CHECK(info.bytes_packed == info.bytes_sent);
  CHECK(ranks.operation(1).info({}, false).bytes_received == info.bytes_sent);
}

TEST_CASE("packed data: what nobody can have packed is refused") {
  MemoryPool pool;
  kernels::Zstd zstd;
  PlainData plain;
  PackedData data(plain, {0, segment_bytes}, {}, {}, pool, zstd);
  Bytes to(100);
  const Bytes frame(50, std::byte{0x28});
  CHECK_FALSE(data.unpack(frame, to));
  Bytes odd_width(50);
  CHECK_FALSE(data.unpack(odd_width, to));
  CHECK_FALSE(data.unpack(ByteView(frame).first(1), to));
  Bytes too_long(segment_bytes + 1);
  Bytes width_one(50, std::byte{1});
  CHECK_FALSE(data.unpack(width_one, too_long));
}

TEST_CASE("pieces by counts: requests that make no sense") {
  const Bytes piece(10);
  Request request;
  request.kind = collectives::Kind::all_to_all;
  request.on_loss = OnLoss::raise;
  request.arrays.push_back({.dtype = kernels::DataType::u8, .input_count = 10});
  request.input_pieces = {piece};
  CHECK_FALSE(check(request).ok());  // no counts
  request.send_shares = {0, 10};
  request.receive_shares = {0, 0};
  CHECK(check(request).ok());
  request.arrays.front().input_count = 9;
  CHECK_FALSE(check(request).ok());
  request.arrays.front().input_count = 10;
  request.input_widths = {4, 4};
  CHECK_FALSE(check(request).ok());
  request.input_widths.clear();
  request.receive_shares = {0, 10};
  request.arrays.front().output = const_cast<std::byte*>(piece.data());
  request.arrays.front().output_count = 10;
  CHECK_FALSE(check(request).ok());  // would be overwritten while it is sent
}
