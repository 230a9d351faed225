// Payloads by reference. Where the other process may read this one's memory, a large payload is not
// copied into the stream: a reference goes there instead, and the other side copies the bytes
// itself, once, straight to where they belong.
//
// Each reference is a loan. It ends when the borrower has taken the bytes, or has found that it
// can't read them, or when the lender revokes it. Nobody waits for anybody: a lender that wants its
// memory back revokes and goes on, and a borrower that finds the loan revoked after it has read
// throws away what it has read.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/bytes.hpp"
#include "transport/connection.hpp"

namespace pyccl::transport {

// A number that a stream uses once; 0 is none.
using Loan = std::uint64_t;

// Bytes in the memory of another process. Nothing here may follow the address.
struct ForeignPiece {
  std::uint64_t address = 0;
  std::uint64_t size = 0;
};

struct Reference {
  Loan loan = 0;
  std::size_t count = 0;
  std::array<ForeignPiece, pieces_max> pieces;
  std::span<const ForeignPiece> view() const { return {pieces.data(), count}; }
};

// On the wire: the loan, and address and size of each piece; 8 bytes each.
constexpr std::size_t reference_bytes(std::size_t pieces) { return 8 + 16 * pieces; }
void encode_reference(Loan loan, std::span<const ByteView> pieces, Bytes& out);
// Of `pieces` pieces that are `size` bytes together and none of them empty; else none.
std::optional<Reference> decode_reference(ByteView bytes, std::size_t pieces, std::uint64_t size);

// What a stream has that can do this.
class Lending {
 public:
  virtual ~Lending() = default;

  // As lender. It pays for so many bytes, and the other side can read this process's memory.
  virtual bool lends(std::size_t bytes) const = 0;
  // 0: enough is lent at present; on_writable comes when it is less.
  virtual Loan lend(std::size_t bytes) = 0;
  // The last one lent, of which the other side has not been told.
  virtual void cancel(Loan) = 0;
  // The other side says that it has dealt with it. False: it could not read that memory. From then
  // on nothing is lent.
  virtual bool settle(Loan) = 0;
  // Whatever of it has not been taken by now never will be.
  virtual void revoke(Loan) = 0;

  // As borrower. `to` has room for all of it.
  enum class Taken { yes, revoked, unreadable, gone };
  virtual Taken take(const Reference&, std::span<const MutableByteView> to) = 0;
  virtual void decline(Loan) = 0;  // nobody wants these bytes
};

}  // namespace pyccl::transport
