// How identities look in texts.
#include "base/ids.hpp"

#include <cstdio>

namespace pyccl {

std::string to_string(PeerId peer) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(peer.value));
  return text;
}

std::string to_string(Epoch epoch) {
  return std::to_string(epoch.incarnation) + "." + std::to_string(epoch.counter);
}

std::string to_string(OpKey key) {
  return "tag " + std::to_string(key.tag) + " #" + std::to_string(key.seq);
}

std::string to_string(OpId id) { return to_string(id.key) + " in view " + to_string(id.epoch); }

}  // namespace pyccl
