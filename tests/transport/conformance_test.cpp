// The conformance suite over each network.
#include <doctest/doctest.h>

#include "transport/harnesses.hpp"

namespace pyccl::transport::test {

TEST_CASE("streams over TCP, IPv4") { stream_conformance(make_tcp_v4); }
TEST_CASE("streams over TCP, IPv6") { stream_conformance(make_tcp_v6); }
TEST_CASE("streams within the process") { stream_conformance(make_inproc); }

TEST_CASE("connections over TCP, IPv4") { connection_conformance(make_tcp_v4); }
TEST_CASE("connections over TCP, IPv6") { connection_conformance(make_tcp_v6); }
TEST_CASE("connections within the process") { connection_conformance(make_inproc); }

TEST_CASE("channels over TCP, IPv4") { channel_conformance(make_tcp_v4); }
TEST_CASE("channels over TCP, IPv6") { channel_conformance(make_tcp_v6); }
TEST_CASE("channels within the process") { channel_conformance(make_inproc); }

TEST_CASE("faults over TCP, IPv4") { channel_fault_conformance(make_tcp_v4); }
TEST_CASE("faults over TCP, IPv6") { channel_fault_conformance(make_tcp_v6); }
TEST_CASE("faults within the process") { channel_fault_conformance(make_inproc); }

// Pipes that hold less than a header: every frame is cut many times.
TEST_CASE("connections in tiny pieces") { connection_conformance(make_tiny_inproc); }
TEST_CASE("channels in tiny pieces") { channel_conformance(make_tiny_inproc); }
TEST_CASE("faults in tiny pieces") { channel_fault_conformance(make_tiny_inproc); }

}  // namespace pyccl::transport::test
