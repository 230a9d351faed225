// Non-temporal stores where the baseline of the architecture has them, else plain ones.
#include "kernels/copy.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace pyccl::kernels {

#if defined(__x86_64__)

void copy_streaming(std::byte* destination, const std::byte* source, std::size_t bytes) {
  constexpr std::size_t line = 64;
  const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(destination) % line;
  const std::size_t head = std::min(bytes, misaligned == 0 ? 0 : line - misaligned);
  if (head > 0) std::memcpy(destination, source, head);
  std::size_t done = head;
  // A whole line at a time, so that the write-combining buffers leave full.
  for (; done + line <= bytes; done += line) {
    const auto* from = reinterpret_cast<const __m128i*>(source + done);
    auto* to = reinterpret_cast<__m128i*>(destination + done);
    const __m128i a = _mm_loadu_si128(from);
    const __m128i b = _mm_loadu_si128(from + 1);
    const __m128i c = _mm_loadu_si128(from + 2);
    const __m128i d = _mm_loadu_si128(from + 3);
    _mm_stream_si128(to, a);
    _mm_stream_si128(to + 1, b);
    _mm_stream_si128(to + 2, c);
    _mm_stream_si128(to + 3, d);
  }
  _mm_sfence();
  if (done < bytes) std::memcpy(destination + done, source + done, bytes - done);
}

#else

void copy_streaming(std::byte* destination, const std::byte* source, std::size_t bytes) {
  if (bytes > 0) std::memcpy(destination, source, bytes);
}

#endif

}  // namespace pyccl::kernels
