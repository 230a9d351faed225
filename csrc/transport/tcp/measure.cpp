// TCP_INFO; see measure.hpp.
#include "transport/tcp/measure.hpp"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <limits>

namespace pyccl::transport::tcp {

std::optional<WayMeasurement> measurement_of(int fd) {
  constexpr std::size_t needed =
      offsetof(tcp_info, tcpi_delivery_rate) + sizeof(tcp_info::tcpi_delivery_rate);
  constexpr auto no_round_trip = std::numeric_limits<__u32>::max();
  tcp_info info{};
  socklen_t size = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || size < needed) {
    return std::nullopt;
  }
  WayMeasurement found;
  if (info.tcpi_min_rtt != no_round_trip) {
    found.round_trip = std::chrono::microseconds(info.tcpi_min_rtt);
  }
  found.delivered = info.tcpi_bytes_acked;
  // Otherwise the last rate that it has measured says no more than how little there was to send.
  found.full = info.tcpi_delivery_rate > 0 && info.tcpi_delivery_rate_app_limited == 0;
  found.waiting = info.tcpi_notsent_bytes > 0;
  return found;
}

}  // namespace pyccl::transport::tcp
