// Numeric addresses and names.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "base/status.hpp"

namespace pyccl::transport::tcp {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;

  int family() const { return storage.ss_family; }
  const sockaddr* raw() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* raw() { return reinterpret_cast<sockaddr*>(&storage); }
};

// "host:port" or "[v6]:port" with a numeric host; never asks a name server.
Result<SocketAddress> parse_address(const std::string& text);
std::string to_text(const SocketAddress& address);
bool equal_hosts(const SocketAddress& a, const SocketAddress& b);
bool is_loopback(const SocketAddress& address);

// All numeric addresses of "host:port". Asks a name server: may block for seconds.
Result<std::vector<std::string>> resolve(const std::string& address);

}  // namespace pyccl::transport::tcp
