// Threads and chance from the operating system.
#include "runtime/system.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

#include <utility>

#include "base/fork.hpp"

namespace pyccl::runtime {

namespace {

// Ctrl-C must interrupt whoever waits, not the loop. Faults of the thread itself stay open, so that
// crash handlers see them.
sigset_t signals_of_the_program() {
  sigset_t set;
  sigfillset(&set);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, SIGPROF}) {
    sigdelset(&set, fault);
  }
  return set;
}

// A new thread inherits the mask of the one that starts it.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    const sigset_t blocked = signals_of_the_program();
    pthread_sigmask(SIG_BLOCK, &blocked, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

std::thread start(const char* name, std::shared_ptr<void> owned, std::function<void()> body) {
  const SignalsBlocked blocked;
  return std::thread([name, owned = std::move(owned), body = std::move(body)] {
    pthread_setname_np(pthread_self(), name);
    body();
  });
}

}  // namespace

LoopThread::LoopThread(const char* name, std::shared_ptr<void> owned, std::function<void()> body)
    : generation_(fork_generation()),
      owned_(owned),
      thread_(start(name, std::move(owned), std::move(body))) {
  id_ = thread_.get_id();
}

LoopThread::~LoopThread() {
  if (in_forked_child()) {
    // The thread's name may be another thread's by now, so it must not even be detached.
    new std::shared_ptr<void>(owned_);
    new std::thread(std::move(thread_));
  } else {
    join();
  }
  if (thread_.joinable()) thread_.detach();
}

void LoopThread::join() {
  if (in_forked_child() || std::this_thread::get_id() == id_) return;
  const std::lock_guard lock(join_mutex_);
  if (thread_.joinable()) thread_.join();
}

bool LoopThread::in_forked_child() const { return fork_generation() != generation_; }

Status shortage(const std::string& what, const std::exception& error) {
  return {
      Code::limit_exceeded,
      what + " can't be opened, the system lacks descriptors, threads or memory: " + error.what()};
}

std::uint64_t random_identity() {
  std::uint64_t value = 0;
  while (value == 0) {
    // Requests of this size are never cut short once the system's pool is ready.
    if (::getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) value = 0;
  }
  return value;
}

}  // namespace pyccl::runtime
