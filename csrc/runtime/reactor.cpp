// The reactor over epoll and an eventfd; see reactor.hpp.
#include "runtime/reactor.hpp"

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

constexpr int events_per_turn = 64;
constexpr std::uint64_t wake_name = ~std::uint64_t{0};

std::uint64_t name_of(int fd, std::uint32_t generation) {
  return (std::uint64_t{generation} << 32) | static_cast<std::uint32_t>(fd);
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

void Reactor::wake() {
  if (woken_.exchange(true)) return;
  const std::uint64_t one = 1;
  (void)!::write(wake_.get(), &one, sizeof one);
}

void Reactor::watch(int fd, transport::tcp::PollHandler* handler, bool readable, bool writable) {
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
  apply_changes();
  if (deadline != never) update_time();
  std::array<epoll_event, events_per_turn> events;
  const int count =
      ::epoll_wait(epoll_.get(), events.data(), events_per_turn, wait_milliseconds(deadline));
  update_time();
  PYCCL_ASSERT(count >= 0 || errno == EINTR);
  run_posted();
  for (int i = 0; i < count; ++i) dispatch(events[i].data.u64, events[i].events);
}

void Reactor::run_posted() {
  running_.swap(posted_);
  for (std::size_t i = 0; i < running_.size(); ++i) {
    if (running_[i] != nullptr) std::exchange(running_[i], nullptr)->on_posted();
  }
  running_.clear();
}

void Reactor::dispatch(std::uint64_t name, std::uint32_t events) {
  if (name == wake_name) {
    std::uint64_t count = 0;
    (void)!::read(wake_.get(), &count, sizeof count);
    (void)woken_.exchange(false);  // what was written before wake() is visible from here on
    return;
  }
  const Entry& entry = entries_[static_cast<std::uint32_t>(name)];
  if (entry.handler == nullptr || entry.generation != name >> 32) return;
  entry.handler->on_ready((events & EPOLLIN) != 0, (events & EPOLLOUT) != 0,
                          (events & (EPOLLERR | EPOLLHUP)) != 0);
}

void Reactor::post(transport::tcp::PollHandler* handler) { posted_.push_back(handler); }

void Reactor::cancel_post(transport::tcp::PollHandler* handler) {
  std::replace(running_.begin(), running_.end(), handler,
               static_cast<transport::tcp::PollHandler*>(nullptr));
  std::erase(posted_, handler);
}

}  // namespace pyccl::runtime
