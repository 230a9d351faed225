// Parsing and printing through getaddrinfo and getnameinfo, which know about zones ("%eth0") too.
#include "transport/tcp/address.hpp"

#include <netdb.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

namespace pyccl::transport::tcp {

namespace {

struct HostAndPort {
  std::string host;
  std::string port;
};

Result<HostAndPort> split(const std::string& text) {
  const auto malformed = [&] {
    return Status(Code::invalid_argument,
                  "'" + text + "' is not an address: expected host:port or [v6]:port");
  };
  const std::size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return malformed();
  HostAndPort parts{text.substr(0, colon), text.substr(colon + 1)};
  if (parts.host.front() == '[') {
    if (parts.host.back() != ']' || parts.host.size() < 3) return malformed();
    parts.host = parts.host.substr(1, parts.host.size() - 2);
  } else if (parts.host.find(':') != std::string::npos) {
    return malformed();
  }
  const bool digits = std::all_of(parts.port.begin(), parts.port.end(),
                                  [](char c) { return c >= '0' && c <= '9'; });
  if (parts.port.empty() || parts.port.size() > 5 || !digits || std::stoi(parts.port) > 65535) {
    return malformed();
  }
  return parts;
}

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<AddressList> look_up(const std::string& text, int flags) {
  Result<HostAndPort> parts = split(text);
  if (!parts.ok()) return parts.status();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(parts.value().host.c_str(), parts.value().port.c_str(), &hints, &found);
  if (error != 0) {
    return Status(Code::invalid_argument, "'" + text + "': " + gai_strerror(error));
  }
  return AddressList(found, &freeaddrinfo);
}

SocketAddress copy_of(const addrinfo& info) {
  SocketAddress address;
  address.size = info.ai_addrlen;
  std::memcpy(&address.storage, info.ai_addr, info.ai_addrlen);
  return address;
}

}  // namespace

Result<SocketAddress> parse_address(const std::string& text) {
  Result<AddressList> found = look_up(text, AI_NUMERICHOST);
  if (!found.ok()) return found.status();
  return copy_of(*found.value());
}

std::string to_text(const SocketAddress& address) {
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  const int error = getnameinfo(address.raw(), address.size, host.data(), host.size(), port.data(),
                                port.size(), NI_NUMERICHOST | NI_NUMERICSERV);
  if (error != 0) return "(no address)";
  if (address.family() == AF_INET6) return "[" + std::string(host.data()) + "]:" + port.data();
  return std::string(host.data()) + ":" + port.data();
}

bool equal_hosts(const SocketAddress& a, const SocketAddress& b) {
  if (a.family() != b.family()) return false;
  if (a.family() == AF_INET) {
    const auto* left = reinterpret_cast<const sockaddr_in*>(&a.storage);
    const auto* right = reinterpret_cast<const sockaddr_in*>(&b.storage);
    return left->sin_addr.s_addr == right->sin_addr.s_addr;
  }
  const auto* left = reinterpret_cast<const sockaddr_in6*>(&a.storage);
  const auto* right = reinterpret_cast<const sockaddr_in6*>(&b.storage);
  return std::memcmp(&left->sin6_addr, &right->sin6_addr, sizeof(in6_addr)) == 0;
}

bool is_loopback(const SocketAddress& address) {
  if (address.family() == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(&address.storage);
    return (ntohl(v4->sin_addr.s_addr) >> 24) == 127;
  }
  const auto* v6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) != 0;
}

Result<std::vector<std::string>> resolve(const std::string& address) {
  Result<AddressList> found = look_up(address, 0);
  if (!found.ok()) return found.status();
  std::vector<std::string> texts;
  for (const addrinfo* info = found.value().get(); info != nullptr; info = info->ai_next) {
    std::string text = to_text(copy_of(*info));
    if (std::find(texts.begin(), texts.end(), text) == texts.end()) {
      texts.push_back(std::move(text));
    }
  }
  return texts;
}

}  // namespace pyccl::transport::tcp
