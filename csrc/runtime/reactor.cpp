// The reactor over epoll and an eventfd; see reactor.hpp.
#include "runtime/reactor.hpp"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

#include "base/assert.hpp"

namespace pyccl::runtime {

namespace {

constexpr std::uint64_t wake_name = ~std::uint64_t{0};
// As long as memory keeps the loop busy, descriptors wait so long at most.
constexpr Duration poll_interval = 10us;
constexpr int nothing = -2;

std::uint64_t name_of(int fd, std::uint32_t generation) {
  return (std::uint64_t{generation} << 32) | static_cast<std::uint32_t>(fd);
}

// What a loop that only looks tells the processor, which may give its means to somebody else.
void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

epoll_event make_event(std::uint32_t events, std::uint64_t name) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = name;
  return event;
}

}  // namespace

Reactor::Reactor()
    : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  epoll_event event = make_event(EPOLLIN, wake_name);
  if (!epoll_.valid() || !wake_.valid() ||
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) {
    throw std::system_error(errno, std::generic_category());
  }
  update_time();
}

Reactor::~Reactor() = default;

Time Reactor::update_time() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  now_ = {std::chrono::duration_cast<Duration>(since).count()};
  return now_;
}

// As with memory: the loop says that it sleeps and then looks, the others say that they have woken
// it and then look.
void Reactor::wake() {
  if (woken_.exchange(true) || !asleep_.load()) return;
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void Reactor::watch(int fd, transport::PollHandler* handler, bool readable, bool writable) {
  const auto index = static_cast<std::size_t>(fd);
  if (index >= entries_.size()) entries_.resize(index + 1);
  Entry& entry = entries_[index];
  PYCCL_ASSERT(entry.handler == nullptr || entry.handler == handler);
  entry.handler = handler;
  entry.wanted = (readable ? std::uint32_t{EPOLLIN} : 0) | (writable ? std::uint32_t{EPOLLOUT} : 0);
  if (entry.changed) return;
  entry.changed = true;
  changed_.push_back(fd);
}

void Reactor::unwatch(int fd) {
  const auto index = static_cast<std::size_t>(fd);
  if (index >= entries_.size() || entries_[index].handler == nullptr) return;
  Entry& entry = entries_[index];
  if (entry.known) (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  const bool changed = entry.changed;
  const std::uint32_t generation = entry.generation + 1;
  entry = {};
  entry.generation = generation;
  entry.changed = changed;  // it stands in changed_ once, whoever has the number by then
}

void Reactor::apply_changes() {
  std::size_t kept = 0;
  for (const int fd : changed_) {
    Entry& entry = entries_[static_cast<std::size_t>(fd)];
    entry.changed = false;
    if (entry.handler == nullptr || (entry.known && entry.registered == entry.wanted)) continue;
    epoll_event event = make_event(entry.wanted, name_of(fd, entry.generation));
    const int call = entry.known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (::epoll_ctl(epoll_.get(), call, fd, &event) != 0) {
      // The kernel has no room for it at present.
      PYCCL_ASSERT(errno == ENOMEM || errno == ENOSPC);
      entry.changed = true;
      changed_[kept++] = fd;
      continue;
    }
    entry.known = true;
    entry.registered = entry.wanted;
  }
  changed_.resize(kept);
}

int Reactor::wait_milliseconds(Time deadline) const {
  if (!posted_.empty()) return 0;
  constexpr int retry = 10;
  if (deadline == never) return changed_.empty() ? -1 : retry;
  const std::int64_t left = deadline.nanoseconds - now_.nanoseconds;
  if (left <= 0) return 0;
  const std::int64_t longest = changed_.empty() ? 3'600'000 : retry;
  // Rounded up: not to come back just before the time.
  return static_cast<int>(std::min(left / 1'000'000 + 1, longest));
}

void Reactor::run_once(Time deadline) {
  std::erase(memory_, nullptr);
  apply_changes();
  if (deadline != never || spin_ > Duration::zero()) update_time();
  const int count = gather(deadline);
  update_time();
  run_posted();
  for (int i = 0; i < count; ++i) dispatch(events_[i].data.u64, events_[i].events);
  run_memory();
}

// Waits; how many events of descriptors there are.
int Reactor::gather(Time deadline) {
  if (memory_ready() || take_wake()) return now_ - polled_ < poll_interval ? 0 : poll(0);
  if (!posted_.empty() || deadline <= now_) return poll(0);
  if (spin_ > Duration::zero()) {
    const int count = spin(deadline);
    if (count != nothing) return count;
  }
  return rest(deadline);
}

// How many events there are, none if it is something else, `nothing` if the time is over.
int Reactor::spin(Time deadline) {
  // The kernel is asked each microsecond or so; without memory to look at, all the time.
  const int looks = memory_.empty() ? 1 : 20;
  const Time end = std::min(deadline, now_ + spin_);
  while (now_ < end) {
    for (int i = 0; i < looks; ++i) {
      if (memory_ready() || take_wake()) return 0;
      if (!memory_.empty()) relax();
    }
    const int count = poll(0);
    if (count > 0) return count;
    (void)::sched_yield();
    update_time();
  }
  return nothing;
}

int Reactor::rest(Time deadline) {
  asleep_.store(true);
  const bool stay_awake = woken_.load() || !doze();
  const int count = poll(stay_awake ? 0 : wait_milliseconds(deadline));
  if (!stay_awake) {
    for (auto* handler : memory_) handler->rouse();
  }
  asleep_.store(false, std::memory_order_relaxed);
  (void)take_wake();
  return count;
}

// What was written before wake() is visible from here on.
bool Reactor::take_wake() {
  return woken_.load(std::memory_order_relaxed) && woken_.exchange(false);
}

int Reactor::poll(int milliseconds) {
  polled_ = now_;
  const int count = ::epoll_wait(epoll_.get(), events_.data(), events_per_turn, milliseconds);
  PYCCL_ASSERT(count >= 0 || errno == EINTR);
  return count;
}

bool Reactor::memory_ready() const {
  return std::ranges::any_of(memory_, [](auto* handler) { return handler->ready(); });
}

bool Reactor::doze() {
  for (std::size_t i = 0; i < memory_.size(); ++i) {
    if (memory_[i]->doze()) continue;
    while (i > 0) memory_[--i]->rouse();
    return false;
  }
  return true;
}

void Reactor::run_posted() {
  running_.swap(posted_);
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (running_[i] != nullptr) std::exchange(running_[i], nullptr)->on_posted();
  }
  running_.clear();
}

// Whoever comes in this turn waits for the next one; whoever goes leaves a gap until then.
void Reactor::run_memory() {
  const std::size_t count = memory_.size();
  for (std::size_t i = 0; i < count; ++i) {
    if (memory_[i] != nullptr && memory_[i]->ready()) memory_[i]->on_memory();
  }
}

void Reactor::dispatch(std::uint64_t name, std::uint32_t events) {
  if (name == wake_name) {
    std::uint64_t count = 0;
    (void)!::read(wake_.get(), &count, sizeof count);
    return;
  }
  const Entry& entry = entries_[static_cast<std::uint32_t>(name)];
  if (entry.handler == nullptr || entry.generation != name >> 32) return;
  entry.handler->on_ready((events & EPOLLIN) != 0, (events & EPOLLOUT) != 0,
                          (events & (EPOLLERR | EPOLLHUP)) != 0);
}

void Reactor::post(transport::PollHandler* handler) { posted_.push_back(handler); }

void Reactor::cancel_post(transport::PollHandler* handler) {
  std::replace(running_.begin(), running_.end(), handler,
               static_cast<transport::PollHandler*>(nullptr));
  std::erase(posted_, handler);
}

void Reactor::watch_memory(transport::MemoryHandler* handler) { memory_.push_back(handler); }

void Reactor::unwatch_memory(transport::MemoryHandler* handler) {
  std::replace(memory_.begin(), memory_.end(), handler,
               static_cast<transport::MemoryHandler*>(nullptr));
}

}  // namespace pyccl::runtime
