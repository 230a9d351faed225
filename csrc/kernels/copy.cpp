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

namespace {

constexpr std::size_t line_bytes = 64;
constexpr std::size_t page_bytes = 4096;
// So many pages are copied side by side: processors fetch ahead within a page and not beyond it, so
// one page after the other waits for memory at the begin of each.
constexpr std::size_t pages_at_once = 4;

// A whole line at a time, so that the write-combining buffers leave full.
void copy_line(std::byte* destination, const std::byte* source) {
  const auto* from = reinterpret_cast<const __m128i*>(source);
  auto* to = reinterpret_cast<__m128i*>(destination);
  const __m128i a = _mm_loadu_si128(from);
  const __m128i b = _mm_loadu_si128(from + 1);
  const __m128i c = _mm_loadu_si128(from + 2);
  const __m128i d = _mm_loadu_si128(from + 3);
  _mm_stream_si128(to, a);
  _mm_stream_si128(to + 1, b);
  _mm_stream_si128(to + 2, c);
  _mm_stream_si128(to + 3, d);
}

}  // namespace

void copy_streaming(std::byte* destination, const std::byte* source, std::size_t bytes) {
  const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(destination) % line_bytes;
  const std::size_t head = std::min(bytes, misaligned == 0 ? 0 : line_bytes - misaligned);
  if (head > 0) std::memcpy(destination, source, head);
  std::size_t done = head;
  constexpr std::size_t together = pages_at_once * page_bytes;
  for (; done + together <= bytes; done += together) {
    for (std::size_t at = done; at < done + page_bytes; at += line_bytes) {
      for (std::size_t page = 0; page < together; page += page_bytes) {
        copy_line(destination + at + page, source + at + page);
      }
    }
  }
  for (; done + line_bytes <= bytes; done += line_bytes) {
    copy_line(destination + done, source + done);
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
