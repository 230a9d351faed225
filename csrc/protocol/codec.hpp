// Messages as bytes, as text, and at random. All of it follows from the field lists (fields.hpp).
//
// On the wire: one byte for the format, one for the kind, then the fields in order, little endian;
// a string has its length before it in 2 bytes, a list in 4. What is decoded has been checked
// against every bound: bytes from anybody give a message within its limits or a Status, never an
// exception and never an allocation beyond what arrived.
#pragma once

#include <string>

#include "base/bytes.hpp"
#include "base/prng.hpp"
#include "base/status.hpp"
#include "protocol/coordinator.hpp"
#include "protocol/messages.hpp"

namespace pyccl::protocol {

inline constexpr std::uint8_t wire_format = 2;

// Texts beyond their limit are cut. A message beyond its own is refused by the connection that is
// to carry it, lists with too many items by the other side: nobody should make them, but what
// others say must not be able to end this process.
Bytes encode(const Message&);
Result<Message> decode(ByteView);
std::string to_string(const Message&);

// Any message with any content within its limits; lists and texts are mostly short.
Message random_message(Prng&);

// What the coordinator's host keeps in its state file. All groups' decisions stand in it, so it has
// no fixed bound.
Bytes encode_state(const CoordinatorState&);
Result<CoordinatorState> decode_state(ByteView);

}  // namespace pyccl::protocol
