// Sockets, and the options that all of ours have.
#pragma once

#include <string>

#include "base/file_descriptor.hpp"
#include "base/status.hpp"
#include "base/time.hpp"
#include "transport/tcp/address.hpp"

namespace pyccl::transport::tcp {

// Non-blocking and closed on exec.
FileDescriptor make_socket(int family);
void set_stream_options(int fd, Duration silence_limit);
// For streams that leave the host: the kernel takes little more than the link does, so that what
// the link of a slow stream can't take stays with us, where a faster one may pick it up.
void limit_unsent(int fd);
// For both ends on one host.
void avoid_pacing(int fd);
SocketAddress local_address(int fd);
SocketAddress remote_address(int fd);
int pending_error(int fd);

// "connection refused" and its kin, as a sentence about `what`.
Status system_error(const std::string& what, int error);

}  // namespace pyccl::transport::tcp
