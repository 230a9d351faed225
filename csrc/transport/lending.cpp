// References to bytes and back; see lending.hpp.
#include "transport/lending.hpp"

#include "base/assert.hpp"

namespace pyccl::transport {

void encode_reference(Loan loan, std::span<const ByteView> pieces, Bytes& out) {
  out.resize(reference_bytes(pieces.size()));
  std::byte* at = out.data();
  store_little(at, loan);
  for (const ByteView& piece : pieces) {
    store_little(at + 8, reinterpret_cast<std::uintptr_t>(piece.data()));
    store_little(at + 16, static_cast<std::uint64_t>(piece.size()));
    at += 16;
  }
}

std::optional<Reference> decode_reference(ByteView bytes, std::size_t pieces, std::uint64_t size) {
  PYCCL_ASSERT(pieces <= pieces_max && bytes.size() == reference_bytes(pieces));
  const std::byte* at = bytes.data();
  Reference reference;
  reference.loan = load_little<std::uint64_t>(at);
  reference.count = pieces;
  for (std::size_t i = 0; i < pieces; ++i, at += 16) {
    ForeignPiece& piece = reference.pieces[i];
    piece.address = load_little<std::uint64_t>(at + 8);
    piece.size = load_little<std::uint64_t>(at + 16);
    if (piece.size == 0 || piece.size > size) return std::nullopt;
    size -= piece.size;
  }
  if (size != 0) return std::nullopt;
  return reference;
}

}  // namespace pyccl::transport
