// Copying what nobody will read soon.
#pragma once

#include <cstddef>

namespace pyccl::kernels {

// As memcpy, past the caches: neither does the destination push out what is about to be used, nor
// is it read before it is written. For backups and own shares of large operations.
void copy_streaming(std::byte* destination, const std::byte* source, std::size_t bytes);

}  // namespace pyccl::kernels
