/* Reads memory by several threads and does next to nothing else: what a digest of the same bytes
   can't be faster than. Compiled by hashing.py on the machine that is measured. */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum { threads_max = 64 };

struct part {
  const uint64_t* words;
  size_t count;
  uint64_t sum;
};

static void* add_up(void* argument) {
  struct part* part = argument;
  uint64_t sum = 0;
  for (size_t i = 0; i < part->count; ++i) sum += part->words[i];
  part->sum = sum;
  return NULL;
}

/* The sum, so that no compiler leaves the reading out; of the first `threads` equal parts. */
uint64_t read_memory(const void* memory, size_t bytes, int threads) {
  struct part parts[threads_max];
  pthread_t others[threads_max];
  const size_t count = bytes / sizeof(uint64_t) / (size_t)threads;
  for (int i = 0; i < threads; ++i) {
    parts[i] = (struct part){(const uint64_t*)memory + (size_t)i * count, count, 0};
    if (i > 0 && pthread_create(&others[i], NULL, add_up, &parts[i]) != 0) return 0;
  }
  add_up(&parts[0]);
  uint64_t sum = parts[0].sum;
  for (int i = 1; i < threads; ++i) {
    pthread_join(others[i], NULL);
    sum += parts[i].sum;
  }
  return sum;
}
