// How identities look in texts.
#include "base/ids.hpp"

#include <cstdio>

namespace pyccl {
namespace {

// Spreads each bit over all others; no two words give the same.
constexpr std::uint64_t mixed(std::uint64_t word) {
  word = (word ^ (word >> 32)) * 0x9e3779b97f4a7c15ull;
  word = (word ^ (word >> 32)) * 0x9e3779b97f4a7c15ull;
  return word ^ (word >> 32);
}

std::string hexadecimal(std::uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

GroupId subgroup_id(GroupId group, std::span<const PeerId> members, std::string_view name) {
  std::uint64_t hash = mixed(group.value + 1);
  const auto add = [&hash](std::uint64_t word) { hash = mixed(hash * 3 + word); };
  add(members.size());
  for (PeerId member : members) add(member.value);
  for (char c : name) add(static_cast<unsigned char>(c));
  constexpr std::uint64_t upper_half = 0xffffffffull << 32;
  return {(hash & upper_half) != 0 ? hash : hash | upper_half};
}

std::string to_string(PeerId peer) { return hexadecimal(peer.value); }

std::string to_string(Epoch epoch) {
  return std::to_string(epoch.incarnation) + "." + std::to_string(epoch.counter);
}

std::string to_string(OpKey key) {
  const std::string text = "tag " + std::to_string(key.tag) + " #" + std::to_string(key.seq);
  return is_subgroup(key.group) ? text + " of subgroup " + hexadecimal(key.group.value) : text;
}

std::string to_string(OpId id) { return to_string(id.key) + " in view " + to_string(id.epoch); }

}  // namespace pyccl
