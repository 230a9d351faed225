// Names become addresses, and a peer finds out where to listen.
#include "runtime/addresses.hpp"

#include <sys/socket.h>

#include <algorithm>

#include "transport/tcp/address.hpp"
#include "transport/tcp/socket.hpp"

namespace pyccl::runtime {

namespace {

bool is_v6(const std::string& numeric) { return numeric.starts_with('['); }

// A resolver names IPv6 addresses also on hosts (many containers) that can't use any.
bool host_has_v6() {
  const auto any = transport::tcp::parse_address("[::]:0");
  if (!any.ok()) return false;
  const auto fd = transport::tcp::make_socket(AF_INET6);
  return fd.valid() && ::bind(fd.get(), any.value().raw(), any.value().size) == 0;
}

bool on_loopback(const std::string& numeric) {
  const auto parsed = transport::tcp::parse_address(numeric);
  return parsed.ok() && transport::tcp::is_loopback(parsed.value());
}

}  // namespace

Result<std::vector<std::string>> resolve_all(const std::string& address) {
  auto resolved = transport::tcp::resolve(address);
  if (!resolved.ok()) return resolved;
  auto addresses = resolved.take();
  const auto v6 =
      static_cast<std::size_t>(std::count_if(addresses.begin(), addresses.end(), is_v6));
  if (v6 > 0 && v6 < addresses.size() && !host_has_v6()) std::erase_if(addresses, is_v6);
  return addresses;
}

Result<std::string> resolve_first(const std::string& address) {
  auto addresses = resolve_all(address);
  if (!addresses.ok()) return addresses.status();
  return addresses.value().front();
}

std::string default_listen(const std::vector<std::string>& coordinator) {
  const auto v6 =
      static_cast<std::size_t>(std::count_if(coordinator.begin(), coordinator.end(), is_v6));
  if (std::all_of(coordinator.begin(), coordinator.end(), on_loopback)) {
    return v6 == coordinator.size() ? "[::1]:0" : "127.0.0.1:0";
  }
  // With addresses of both families nobody knows yet which one will answer, and a listener on
  // [::] takes both.
  return v6 == 0 ? "0.0.0.0:0" : "[::]:0";
}

}  // namespace pyccl::runtime
