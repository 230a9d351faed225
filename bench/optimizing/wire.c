/* Links between network namespaces with a rate and a delay, where the kernel can delay nothing.
   Compiled and run by wire.py:

       wire SITES MBIT DELAY_MS QUEUE_MS

   Each site has a TUN device wan0, wan1, ... and a way up to a core and one down from it, of MBIT
   each (0: no limit); between them DELAY_MS pass. The site of a packet to a.b.c.d is d - 1. What
   would wait for longer than QUEUE_MS for its turn on a way is dropped. Says "ready" once the
   devices are there, and at the end of its input how many packets came and were dropped, and how
   much too late the latest one went on its way, in microseconds. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { sites_max = 64, packet_max = 1 << 16, destination_at = 16, header_bytes = 20 };

struct packet {
  int64_t due;     /* in nanoseconds, at the next of its places */
  uint64_t number; /* among those of one time the first one goes first */
  size_t site;
  int down; /* on the way down already */
  size_t size;
  unsigned char bytes[];
};

static struct packet** heap; /* the one that is due first is the first */
static size_t waiting, room;
static int devices[sites_max];
static int64_t up_free[sites_max], down_free[sites_max];
static double nanoseconds_per_byte;
static int64_t delay, queue, latest;
static uint64_t count, dropped;

static void fail(const char* what) {
  fprintf(stderr, "wire: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int before(const struct packet* a, const struct packet* b) {
  return a->due != b->due ? a->due < b->due : a->number < b->number;
}

static void push(struct packet* packet) {
  if (waiting == room) {
    room = room == 0 ? 1024 : 2 * room;
    heap = realloc(heap, room * sizeof *heap);
    if (heap == NULL) fail("memory");
  }
  size_t at = waiting++;
  for (; at > 0 && before(packet, heap[(at - 1) / 2]); at = (at - 1) / 2) {
    heap[at] = heap[(at - 1) / 2];
  }
  heap[at] = packet;
}

static struct packet* pop(void) {
  struct packet* first = heap[0];
  struct packet* last = heap[--waiting];
  size_t at = 0;
  for (size_t child = 1; child < waiting; child = 2 * at + 1) {
    if (child + 1 < waiting && before(heap[child + 1], heap[child])) ++child;
    if (!before(heap[child], last)) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = last;
  return first;
}

/* When it is through a way that is free at *free; -1: it waited for too long. */
static int64_t through(int64_t* free_at, int64_t begin, size_t size) {
  if (*free_at < begin) *free_at = begin;
  if (*free_at - begin > queue) return -1;
  *free_at += (int64_t)(nanoseconds_per_byte * (double)size);
  return *free_at;
}

static void drop(struct packet* packet) {
  ++dropped;
  free(packet);
}

static void take_all(size_t from, size_t sites) {
  static unsigned char bytes[packet_max];
  for (ssize_t size; (size = read(devices[from], bytes, sizeof bytes)) > 0;) {
    const size_t site = (size_t)bytes[destination_at + 3] - 1;
    /* Of IPv4 only. */
    if (size < header_bytes || bytes[0] >> 4 != 4 || site >= sites) continue;
    struct packet* packet = malloc(sizeof *packet + (size_t)size);
    if (packet == NULL) fail("memory");
    const int64_t sent = through(&up_free[from], now(), (size_t)size);
    *packet = (struct packet){sent + delay, count++, site, 0, (size_t)size};
    memcpy(packet->bytes, bytes, (size_t)size);
    if (sent < 0) {
      drop(packet);
    } else {
      push(packet);
    }
  }
}

static void go_on(struct packet* packet) {
  if (!packet->down) {
    packet->down = 1;
    packet->due = through(&down_free[packet->site], packet->due, packet->size);
    if (packet->due < 0) {
      drop(packet);
    } else {
      push(packet);
    }
    return;
  }
  const int64_t late = now() - packet->due;
  if (late > latest) latest = late;
  if (write(devices[packet->site], packet->bytes, packet->size) < 0) ++dropped;
  free(packet);
}

static void open_device(size_t site) {
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  snprintf(request.ifr_name, sizeof request.ifr_name, "wan%zu", site);
  devices[site] = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (devices[site] < 0) fail("/dev/net/tun");
  if (ioctl(devices[site], TUNSETIFF, &request) < 0) fail(request.ifr_name);
}

int main(int argument_count, char** arguments) {
  if (argument_count != 5) return 2;
  const size_t sites = strtoul(arguments[1], NULL, 10);
  const double mbit = strtod(arguments[2], NULL);
  if (sites < 1 || sites > sites_max) return 2;
  nanoseconds_per_byte = mbit > 0 ? 8000.0 / mbit : 0;
  delay = (int64_t)(strtod(arguments[3], NULL) * 1e6);
  queue = (int64_t)(strtod(arguments[4], NULL) * 1e6);
  struct pollfd wait_for[sites_max + 1] = {{.fd = STDIN_FILENO, .events = POLLIN}};
  for (size_t site = 0; site < sites; ++site) {
    open_device(site);
    wait_for[site + 1] = (struct pollfd){.fd = devices[site], .events = POLLIN};
  }
  /* So that a busy machine makes no delay of its own; what is late all the same is told. */
  const struct sched_param first = {.sched_priority = 1};
  (void)sched_setscheduler(0, SCHED_FIFO, &first);
  puts("ready");
  fflush(stdout);
  for (;;) {
    const int64_t left = waiting > 0 ? heap[0]->due - now() : 1000000000;
    const struct timespec rest = {left > 0 ? left / 1000000000 : 0,
                                  left > 0 ? left % 1000000000 : 0};
    if (ppoll(wait_for, sites + 1, &rest, NULL) < 0 && errno != EINTR) fail("ppoll");
    if (wait_for[0].revents != 0) break;
    for (size_t site = 0; site < sites; ++site) {
      if ((wait_for[site + 1].revents & POLLIN) != 0) take_all(site, sites);
    }
    while (waiting > 0 && heap[0]->due <= now()) go_on(pop());
  }
  printf("%llu %llu %lld\n", (unsigned long long)count, (unsigned long long)dropped,
         (long long)(latest / 1000));
  return 0;
}
