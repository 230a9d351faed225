// See state_schema.hpp. Little endian: version 1, strict 1, then of each tensor: bytes of the name
// 4, name, bytes of the type's name 1, that name, dimensions 1, each dimension 8.
#include "engine/state_schema.hpp"

#include <algorithm>
#include <map>
#include <optional>

namespace pyccl::engine {
namespace {

constexpr std::uint8_t schema_version = 1;
constexpr std::size_t differences_max = 8;  // that a text names

template <class T>
void append(Bytes& bytes, T value) {
  bytes.resize(bytes.size() + sizeof value);
  store_little(bytes.data() + bytes.size() - sizeof value, value);
}

void append(Bytes& bytes, const std::string& text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  bytes.insert(bytes.end(), begin, begin + text.size());
}

// Reads as far as there is something to read.
class Reader {
 public:
  explicit Reader(ByteView bytes) : bytes_(bytes) {}
  bool at_end() const { return bytes_.empty(); }

  template <class T>
  std::optional<T> number() {
    if (bytes_.size() < sizeof(T)) return std::nullopt;
    const T value = load_little<T>(bytes_.data());
    bytes_ = bytes_.subspan(sizeof(T));
    return value;
  }

  std::optional<std::string> text(std::size_t size) {
    if (bytes_.size() < size) return std::nullopt;
    std::string value(reinterpret_cast<const char*>(bytes_.data()), size);
    bytes_ = bytes_.subspan(size);
    return value;
  }

 private:
  ByteView bytes_;
};

struct Schema {
  bool strict = false;
  std::map<std::string, std::string> tensors;  // "f32(3, 4)" by name
};

std::optional<std::string> read_type(Reader& reader) {
  const auto size = reader.number<std::uint8_t>();
  auto type = size ? reader.text(*size) : std::nullopt;
  const auto dimensions = reader.number<std::uint8_t>();
  if (!type || !dimensions) return std::nullopt;
  *type += "(";
  for (int i = 0; i < *dimensions; ++i) {
    const auto dimension = reader.number<std::uint64_t>();
    if (!dimension) return std::nullopt;
    *type += (i == 0 ? "" : ", ") + std::to_string(*dimension);
  }
  return *type + ")";
}

std::optional<Schema> decode(ByteView bytes) {
  Reader reader(bytes);
  Schema schema;
  const auto version = reader.number<std::uint8_t>();
  const auto strict = reader.number<std::uint8_t>();
  if (!version || *version != schema_version || !strict) return std::nullopt;
  schema.strict = *strict != 0;
  while (!reader.at_end()) {
    const auto size = reader.number<std::uint32_t>();
    const auto name = size ? reader.text(*size) : std::nullopt;
    const auto type = name ? read_type(reader) : std::nullopt;
    if (!type) return std::nullopt;
    schema.tensors[*name] = *type;
  }
  return schema;
}

class Differences {
 public:
  void add(const std::string& text) {
    if (++count_ <= differences_max) text_ += (count_ == 1 ? "" : "; ") + text;
  }
  std::string text() const {
    if (count_ <= differences_max) return text_;
    return text_ + "; and " + std::to_string(count_ - differences_max) + " more";
  }

 private:
  std::size_t count_ = 0;
  std::string text_;
};

}  // namespace

Bytes encode_schema(const std::vector<Tensor>& tensors, bool strict) {
  Bytes bytes;
  append(bytes, schema_version);
  append(bytes, static_cast<std::uint8_t>(strict));
  for (const Tensor& tensor : tensors) {
    append(bytes, static_cast<std::uint32_t>(tensor.name.size()));
    append(bytes, tensor.name);
    append(bytes, static_cast<std::uint8_t>(tensor.dtype.size()));
    append(bytes, tensor.dtype);
    append(bytes, static_cast<std::uint8_t>(tensor.shape.size()));
    for (const std::uint64_t dimension : tensor.shape) append(bytes, dimension);
  }
  return bytes;
}

std::string schema_difference(ByteView first, const std::string& first_place, ByteView other,
                              const std::string& other_place) {
  const auto ours = decode(first);
  const auto theirs = decode(other);
  if (!ours) return first_place + " has a schema that can't be read";
  if (!theirs) return other_place + " has a schema that can't be read";
  Differences differences;
  if (ours->strict != theirs->strict) {
    differences.add("expect_next is set at " + (ours->strict ? first_place : other_place) +
                    " only");
  }
  for (const auto& [name, type] : ours->tensors) {
    const auto found = theirs->tensors.find(name);
    if (found == theirs->tensors.end()) {
      differences.add("'" + name + "' is missing at " + other_place);
    } else if (found->second != type) {
      differences.add("'" + name + "' is " + found->second + " at " + other_place + ", but " +
                      type + " at " + first_place);
    }
  }
  for (const auto& [name, type] : theirs->tensors) {
    if (!ours->tensors.contains(name)) {
      differences.add("'" + name + "' is missing at " + first_place);
    }
  }
  return differences.text();
}

}  // namespace pyccl::engine
