// Four walks over the field lists: write, read, print, invent.
#include "protocol/codec.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "base/assert.hpp"
#include "protocol/fields.hpp"

namespace pyccl::protocol {
namespace {

// Texts are cut where a character begins, so that what arrives is still valid UTF-8.
std::size_t cut_length(const std::string& text, std::size_t limit) {
  if (text.size() <= limit) return text.size();
  std::size_t end = limit;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  return end;
}

template <class T>
struct IsList : std::false_type {};
template <class T>
struct IsList<std::vector<T>> : std::true_type {};

// Bounds of one field; a walk hands them down to the field's value.
struct Bounds {
  std::size_t limit = 0;
  std::size_t item_limit = 0;
};

template <class Object, class Visit>
void for_each_field(Visit visit) {
  std::apply([&](const auto&... field) { (visit(field), ...); },
             fields_of(static_cast<const Object*>(nullptr)));
}

class Writer {
 public:
  template <class T>
  void write(const T& value, Bounds bounds = {}) {
    if constexpr (std::is_same_v<T, bool>) {
      number(static_cast<std::uint8_t>(value));
    } else if constexpr (std::is_enum_v<T>) {
      number(static_cast<std::underlying_type_t<T>>(value));
    } else if constexpr (std::is_integral_v<T>) {
      number(value);
    } else if constexpr (std::is_same_v<T, std::string>) {
      text(value, bounds.limit);
    } else if constexpr (std::is_same_v<T, Status>) {
      number(static_cast<std::uint8_t>(value.code()));
      text(value.reason(), bounds.limit);
      write(value.peer());
    } else if constexpr (IsList<T>::value) {
      number(static_cast<std::uint32_t>(value.size()));
      for (const auto& item : value) write(item, Bounds{bounds.item_limit});
    } else {
      for_each_field<T>([&](const auto& field) {
        write(value.*field.member, Bounds{field.limit, field.item_limit});
      });
    }
  }

  Bytes take() { return std::move(bytes_); }

 private:
  template <class T>
  void number(T value) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    store_little(bytes_.data() + at, value);
  }

  void text(const std::string& value, std::size_t limit) {
    const std::size_t length = cut_length(value, limit);
    number(static_cast<std::uint16_t>(length));
    const auto* begin = reinterpret_cast<const std::byte*>(value.data());
    bytes_.insert(bytes_.end(), begin, begin + length);
  }

  Bytes bytes_;
};

// Reads until something is wrong; then every further read does nothing and `error` says what it
// was.
class Reader {
 public:
  Reader(ByteView bytes, bool bounded) : bytes_(bytes), bounded_(bounded) {}

  template <class T>
  void read(T& value, const char* name = "", Bounds bounds = {}) {
    if (!error_.empty()) return;
    if constexpr (std::is_same_v<T, bool>) {
      const auto raw = number<std::uint8_t>(name);
      if (raw > 1) return fail(name, "is no truth value");
      value = raw == 1;
    } else if constexpr (std::is_enum_v<T>) {
      const auto raw = number<std::underlying_type_t<T>>(name);
      if (raw > static_cast<std::underlying_type_t<T>>(last_of(T{})))
        return fail(name, "has an unknown value");
      value = static_cast<T>(raw);
    } else if constexpr (std::is_integral_v<T>) {
      value = number<T>(name);
    } else if constexpr (std::is_same_v<T, std::string>) {
      text(value, name, bounds.limit);
    } else if constexpr (std::is_same_v<T, Status>) {
      status(value, name, bounds.limit);
    } else if constexpr (IsList<T>::value) {
      list(value, name, bounds);
    } else {
      for_each_field<T>([&](const auto& field) {
        read(value.*field.member, field.name, Bounds{field.limit, field.item_limit});
      });
    }
  }

  void finish() {
    if (error_.empty() && at_ != bytes_.size()) fail("the message", "goes on behind its end");
  }

  const std::string& error() const { return error_; }

 private:
  void fail(const char* name, const char* what) {
    if (error_.empty()) error_ = std::string(name) + " " + what;
  }

  template <class T>
  T number(const char* name) {
    if (!error_.empty()) return {};
    if (bytes_.size() - at_ < sizeof(T)) {
      fail(name, "is cut off");
      return {};
    }
    const T value = load_little<T>(bytes_.data() + at_);
    at_ += sizeof(T);
    return value;
  }

  void text(std::string& value, const char* name, std::size_t limit) {
    const std::size_t length = number<std::uint16_t>(name);
    if (!error_.empty()) return;
    if (length > limit) return fail(name, "is longer than allowed");
    if (bytes_.size() - at_ < length) return fail(name, "is cut off");
    value.assign(reinterpret_cast<const char*>(bytes_.data() + at_), length);
    at_ += length;
  }

  void status(Status& value, const char* name, std::size_t limit) {
    const auto code = number<std::uint8_t>(name);
    std::string reason;
    text(reason, name, limit);
    PeerId peer;
    read(peer, name);
    if (!error_.empty()) return;
    if (code > static_cast<std::uint8_t>(Code::state_sync))
      return fail(name, "has an unknown code");
    value = Status(static_cast<Code>(code), std::move(reason), peer);
  }

  template <class T>
  void list(std::vector<T>& value, const char* name, Bounds bounds) {
    const std::size_t count = number<std::uint32_t>(name);
    if (!error_.empty()) return;
    if (bounded_ && count > bounds.limit) return fail(name, "has more items than allowed");
    // An item takes at least a byte: a count alone never makes us allocate.
    if (count > bytes_.size() - at_) return fail(name, "is cut off");
    value.clear();
    for (std::size_t i = 0; i < count && error_.empty(); ++i) {
      T item{};
      read(item, name, Bounds{bounds.item_limit});
      value.push_back(std::move(item));
    }
  }

  ByteView bytes_;
  bool bounded_;
  std::size_t at_ = 0;
  std::string error_;
};

// ---- text
template <class T>
std::string shown(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "yes" : "no";
  } else if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<int>(value));
  } else if constexpr (std::is_integral_v<T>) {
    return std::to_string(value);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "\"" + value + "\"";
  } else if constexpr (std::is_same_v<T, Status>) {
    return value.ok() ? "ok"
                      : "code " + std::to_string(static_cast<int>(value.code())) + " \"" +
                            value.reason() + "\"";
  } else if constexpr (std::is_same_v<T, PeerId> || std::is_same_v<T, Epoch> ||
                       std::is_same_v<T, OpKey> || std::is_same_v<T, OpId> ||
                       std::is_same_v<T, Descriptor>) {
    return to_string(value);
  } else if constexpr (IsList<T>::value) {
    std::string text = "[";
    for (const auto& item : value) text += (text.size() > 1 ? ", " : "") + shown(item);
    return text + "]";
  } else {
    std::string text = "{";
    for_each_field<T>([&](const auto& field) {
      text += (text.size() > 1 ? ", " : "") + std::string(field.name) + " " +
              shown(value.*field.member);
    });
    return text + "}";
  }
}

// Parallel to Message.
constexpr const char* kind_names[] = {
    "Hello",   "Register",     "Report",      "Prepared",  "Update",  "UpdateWithdrawn", "Leave",
    "Suspect", "Reachable",    "Refuse",      "Heartbeat", "Welcome", "NotAdmitted",     "Freeze",
    "Prepare", "View",         "Evicted",     "Pending",   "Awaited", "Posted",          "Done",
    "Link",    "LinkAccepted", "LinkRefused", "Measured"};
static_assert(std::size(kind_names) == std::variant_size_v<Message>);

// ---- chance
template <class T>
void invent(Prng& prng, T& value, Bounds bounds = {}) {
  const auto size = [&](std::size_t limit) { return std::min<std::size_t>(limit, prng.below(5)); };
  if constexpr (std::is_same_v<T, bool>) {
    value = prng.chance(1, 2);
  } else if constexpr (std::is_enum_v<T>) {
    value = static_cast<T>(prng.below(static_cast<std::uint64_t>(last_of(T{})) + 1));
  } else if constexpr (std::is_integral_v<T>) {
    value = static_cast<T>(prng.chance(1, 2) ? prng.next() : prng.below(4));
  } else if constexpr (std::is_same_v<T, std::string>) {
    value.resize(prng.chance(1, 50) ? bounds.limit : size(bounds.limit));
    for (char& c : value) c = static_cast<char>('a' + prng.below(26));
  } else if constexpr (std::is_same_v<T, Status>) {
    std::string reason;
    PeerId peer;
    invent(prng, reason, bounds);
    invent(prng, peer);
    value = Status(static_cast<Code>(prng.below(static_cast<std::uint64_t>(Code::state_sync) + 1)),
                   reason, peer);
  } else if constexpr (IsList<T>::value) {
    value.resize(size(bounds.limit));
    for (auto& item : value) invent(prng, item, Bounds{bounds.item_limit});
  } else {
    for_each_field<T>([&](const auto& field) {
      invent(prng, value.*field.member, Bounds{field.limit, field.item_limit});
    });
  }
}

// ---- the kind chooses the type
template <std::size_t kind = 0>
Message message_of_kind(std::size_t wanted) {
  if constexpr (kind < std::variant_size_v<Message>) {
    if (wanted == kind) return Message(std::in_place_index<kind>);
    return message_of_kind<kind + 1>(wanted);
  } else {
    PYCCL_ASSERT(!"a kind beyond the last");
    return {};
  }
}

Status bad_message(std::string why) {
  return {Code::protocol_violation, "message refused: " + std::move(why)};
}

}  // namespace

Bytes encode(const Message& message) {
  Writer writer;
  writer.write(wire_format);
  writer.write(static_cast<std::uint8_t>(message.index()));
  std::visit([&](const auto& content) { writer.write(content); }, message);
  return writer.take();
}

Result<Message> decode(ByteView bytes) {
  if (bytes.size() > message_bytes_max) return bad_message("longer than any message");
  if (bytes.size() < 2) return bad_message("shorter than any message");
  const auto format = static_cast<std::uint8_t>(bytes[0]);
  if (format != wire_format) {
    return bad_message("the other side writes format " + std::to_string(format) +
                       ", this one reads " + std::to_string(wire_format));
  }
  const auto kind = static_cast<std::size_t>(bytes[1]);
  if (kind >= std::variant_size_v<Message>)
    return bad_message("unknown kind " + std::to_string(kind));
  Message message = message_of_kind(kind);
  Reader reader(bytes.subspan(2), true);
  std::visit([&](auto& content) { reader.read(content); }, message);
  reader.finish();
  if (!reader.error().empty())
    return bad_message(std::string(kind_names[kind]) + ": " + reader.error());
  return message;
}

std::string to_string(const Message& message) {
  return kind_names[message.index()] +
         std::visit([](const auto& content) { return shown(content); }, message);
}

Message random_message(Prng& prng) {
  Message message = message_of_kind(prng.below(std::variant_size_v<Message>));
  std::visit([&](auto& content) { invent(prng, content); }, message);
  return message;
}

Bytes encode_state(const CoordinatorState& state) {
  Writer writer;
  writer.write(wire_format);
  writer.write(state.run);
  writer.write(state.incarnation);
  writer.write(state.view);
  return writer.take();
}

Result<CoordinatorState> decode_state(ByteView bytes) {
  CoordinatorState state;
  std::uint8_t format = 0;
  Reader reader(bytes, false);
  reader.read(format, "format");
  if (reader.error().empty() && format != wire_format)
    return bad_message("the state has another format");
  reader.read(state.run, "run");
  reader.read(state.incarnation, "incarnation");
  reader.read(state.view, "view");
  reader.finish();
  if (!reader.error().empty()) return bad_message("state: " + reader.error());
  return state;
}

}  // namespace pyccl::protocol
