// A sync is a loop over what its machine needs next; see engine/state_sync.hpp.
#include "runtime/shared_state.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <new>
#include <thread>
#include <utility>

#include "runtime/compression.hpp"

namespace pyccl::runtime {
namespace {

using engine::StateSync;

constexpr Duration look_every = 50ms;  // at the watch

// Blocks are read by several threads where there are that many processors and bytes enough to make
// up for starting them.
constexpr unsigned threads_max = 8;
constexpr std::uint64_t bytes_per_thread = 4 << 20;
constexpr std::uint64_t bytes_per_grab = 4 << 20;

class Reading {
 public:
  explicit Reading(engine::SharedState& state) : state_(state) {}

  void run() {
    // Room first: with a thread under way nothing may fail.
    std::vector<std::thread> helpers;
    helpers.reserve(threads_max);
    const unsigned processors = std::max(std::thread::hardware_concurrency(), 1u);
    const auto useful = static_cast<unsigned>(
        std::min<std::uint64_t>(state_.bytes() / bytes_per_thread + 1, threads_max));
    try {
      for (unsigned i = 1; i < std::min(processors, useful); ++i) {
        helpers.emplace_back([this] { work(); });
      }
    } catch (const std::exception&) {
      // Fewer threads do as well.
    }
    work();
    for (std::thread& helper : helpers) helper.join();
  }

 private:
  // So many blocks at once that taking them costs nothing, however small they are.
  void work() {
    constexpr std::size_t grab = bytes_per_grab / engine::state_block_bytes;
    const std::size_t blocks = state_.block_count();
    while (true) {
      const std::size_t first = next_.fetch_add(grab, std::memory_order_relaxed);
      if (first >= blocks) return;
      state_.digest_blocks(first, std::min(first + grab, blocks));
    }
  }

  engine::SharedState& state_;
  std::atomic<std::size_t> next_ = 0;
};

class SyncRun {
 public:
  SyncRun(Communicator& communicator, engine::SharedState& state,
          const engine::SyncOptions& options, Duration timeout, const SharedState::Watch& watch)
      : communicator_(communicator),
        state_(state),
        timeout_(timeout),
        watch_(watch),
        machine_(state, options, communicator.peer()) {
    works_.reserve(options.windows_ahead + 1);
  }

  Status boundary() {
    const WorkPtr work = communicator_.boundary(timeout_);
    wait(work);
    return work->status();
  }

  // Where memory is short the others must not wait for operations that this member could not call.
  Status run() {
    try {
      while (step()) {
      }
    } catch (const std::bad_alloc&) {
      communicator_.close();
      return {Code::limit_exceeded,
              "too little memory for a sync, so this communicator has been closed"};
    }
    if (machine_.status().ok() || !gave_up_) return machine_.status();
    return {Code::cancelled, machine_.status().reason(), communicator_.peer()};
  }

  const engine::SyncInfo& info() const { return machine_.info(); }

 private:
  bool step() {
    switch (machine_.need()) {
      case StateSync::Need::over: return false;
      case StateSync::Need::digest:
        Reading(state_).run();
        machine_.digested();
        break;
      case StateSync::Need::post: post(); break;
      case StateSync::Need::wait: {
        const WorkPtr work = works_.front();
        wait(work);
        works_.erase(works_.begin());
        machine_.ended(work->status(), work->info());
        look();
        break;
      }
    }
    return true;
  }

  void post() {
    const ViewSnapshot view = communicator_.view();
    if (const auto samples = machine_.samples(); !samples.blocks.empty()) {
      machine_.compress(compression_pays(samples, view.mb_per_s));
    }
    engine::Request request = machine_.next_request({view.peers, view.mb_per_s});
    const bool waits = machine_.need() == StateSync::Need::wait;
    works_.push_back(
        communicator_.call(std::move(request), timeout_, waits ? Then::waits : Then::goes_on));
    // Its number has to be taken all the same: the others have called it, or will.
    if (gave_up_) communicator_.cancel(works_.back());
  }

  void wait(const WorkPtr& work) {
    while (!work->wait(look_every)) {
      look();
      if (gave_up_) communicator_.cancel(work);
    }
  }

  void look() {
    if (gave_up_ || !watch_ || watch_(machine_.bytes_moved(), machine_.bytes_to_move())) return;
    give_up();
  }

  void give_up() {
    gave_up_ = true;
    for (const WorkPtr& work : works_) communicator_.cancel(work);
  }

  Communicator& communicator_;
  engine::SharedState& state_;
  const Duration timeout_;
  const SharedState::Watch& watch_;
  StateSync machine_;
  std::vector<WorkPtr> works_;  // in the order of the calls
  bool gave_up_ = false;
};

class Syncing {
 public:
  explicit Syncing(bool& flag) : flag_(flag) { flag_ = true; }
  ~Syncing() { flag_ = false; }
  Syncing(const Syncing&) = delete;
  Syncing& operator=(const Syncing&) = delete;

 private:
  bool& flag_;
};

// One sync at a time.
class Turn {
 public:
  explicit Turn(Communicator& communicator)
      : communicator_(communicator), entered_(communicator.enter_sync()) {}
  ~Turn() {
    if (entered_) communicator_.leave_sync();
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  bool entered() const { return entered_; }

 private:
  Communicator& communicator_;
  bool entered_;
};

}  // namespace

std::uint64_t SharedState::revision() const {
  const std::lock_guard lock(mutex_);
  return state_.revision();
}

Status SharedState::idle() const {
  if (!syncing_) return {};
  return {Code::invalid_argument, "a sync of this state is running"};
}

Status SharedState::set_revision(std::uint64_t revision) {
  const std::lock_guard lock(mutex_);
  if (Status status = idle(); !status.ok()) return status;
  state_.set_revision(revision);
  return {};
}

Status SharedState::restored(std::uint64_t revision) {
  const std::lock_guard lock(mutex_);
  if (Status status = idle(); !status.ok()) return status;
  state_.set_revision(revision);
  state_.forget_sync();
  return {};
}

Status SharedState::spoil() {
  const std::lock_guard lock(mutex_);
  if (Status status = idle(); !status.ok()) return status;
  state_.spoil();
  return {};
}

bool SharedState::whole() const {
  const std::lock_guard lock(mutex_);
  return state_.whole();
}

std::vector<std::string> SharedState::void_tensors() const {
  const std::lock_guard lock(mutex_);
  return state_.void_tensors();
}

Result<Digest> SharedState::digest() {
  const std::lock_guard lock(mutex_);
  if (Status status = idle(); !status.ok()) return status;
  Reading(state_).run();
  return state_.digest();
}

Status SharedState::sync(Communicator& communicator, const engine::SyncOptions& options,
                         Duration timeout, const Watch& watch, engine::SyncInfo& info) {
  const auto began = std::chrono::steady_clock::now();
  const Turn turn(communicator);
  if (!turn.entered()) {
    return {Code::invalid_argument, "sync() is already running on this communicator"};
  }
  const std::lock_guard lock(mutex_);
  if (Status status = idle(); !status.ok()) return status;
  const Syncing syncing(syncing_);
  engine::SyncOptions meant = options;
  meant.expect_next = options.expect_next || state_.strict();
  SyncRun run(communicator, state_, meant, timeout, watch);
  Status status = run.boundary();
  if (status.ok()) status = run.run();
  info = run.info();
  info.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (status.ok()) last_ = info;
  return status;
}

engine::SyncInfo SharedState::last_sync() const {
  const std::lock_guard lock(mutex_);
  return last_;
}

}  // namespace pyccl::runtime
