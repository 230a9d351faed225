// Coordinator: a CoordinatorHost, its reactor, its state file and a thread that runs them.
#include "runtime/coordinator.hpp"

#include <atomic>
#include <utility>
#include <vector>

#include "engine/coordinator_host.hpp"
#include "runtime/addresses.hpp"
#include "runtime/reactor.hpp"
#include "runtime/state_file.hpp"
#include "runtime/system.hpp"
#include "transport/tcp/network.hpp"

namespace pyccl::runtime {

namespace {

// For a coordinator that does not promise to survive a restart.
class NoStore final : public engine::StateStore {
 public:
  Status write(const protocol::CoordinatorState&) override { return {}; }
};

// What the thread owns.
class Loop {
 public:
  explicit Loop(const protocol::Timing& timing) : network_(reactor_, {timing.silence_limit()}) {}

  Status open(const CoordinatorSettings& settings, const std::string& listen);
  void run();
  void request_stop();

  const std::string& address() const { return address_; }
  std::uint32_t incarnation() const { return incarnation_.load(std::memory_order_relaxed); }
  std::size_t members() const { return members_.load(std::memory_order_relaxed); }

 private:
  void tell();

  Reactor reactor_;
  transport::tcp::TcpNetwork network_;
  std::unique_ptr<StateFile> file_;
  NoStore no_store_;
  std::unique_ptr<engine::CoordinatorHost> host_;
  LogSink log_;
  std::string address_;
  std::atomic<std::uint32_t> incarnation_ = 0;
  std::atomic<std::size_t> members_ = 0;
  std::atomic<bool> stopping_ = false;
};

Status Loop::open(const CoordinatorSettings& settings, const std::string& listen) {
  log_ = settings.log;
  engine::CoordinatorHostOptions options;
  options.listen = listen;
  options.machine.fresh_run = RunId{random_identity()};
  options.machine.timing = settings.timing;
  engine::StateStore* store = &no_store_;
  if (settings.state_path) {
    auto file = StateFile::open(*settings.state_path);
    if (!file.ok()) return file.status();
    file_ = file.take();
    options.recovered = file_->found();
    store = file_.get();
  }
  auto host = engine::CoordinatorHost::open(options, network_, reactor_, *store);
  if (!host.ok()) return host.status();
  host_ = host.take();
  if (!host_->machine()) {
    // Later a coordinator waits for its disk to recover; one that never began is better told now.
    const std::string why = host_->log.empty() ? "" : ": " + host_->log.back().text;
    return Status(Code::io, "the coordinator can't begin" + why);
  }
  address_ = host_->address();
  incarnation_ = host_->incarnation();
  return {};
}

// Lines are told before each wait, so that none is held back while nothing happens.
void Loop::run() {
  while (!stopping_.load(std::memory_order_acquire)) {
    tell();
    reactor_.run_once(host_->next_deadline().value_or(never));
    if (const auto due = host_->next_deadline(); due && *due <= reactor_.now()) host_->tick();
    host_->end_turn();
    incarnation_.store(host_->incarnation(), std::memory_order_relaxed);
    if (const auto* machine = host_->machine()) {
      members_.store(machine->view().members.size(), std::memory_order_relaxed);
    }
  }
  tell();
  // Here and not with the handle, so that port and file are free when stop() has returned.
  host_.reset();
  file_.reset();
}

void Loop::tell() {
  for (const auto& line : std::exchange(host_->log, {})) {
    if (log_) log_(line.level, line.text);
  }
}

void Loop::request_stop() {
  stopping_.store(true, std::memory_order_release);
  reactor_.wake();
}

class ThreadedCoordinator final : public Coordinator {
 public:
  explicit ThreadedCoordinator(std::shared_ptr<Loop> loop)
      : loop_(std::move(loop)),
        thread_("pyccl-coord", loop_, [its_loop = loop_.get()] { its_loop->run(); }) {}

  ~ThreadedCoordinator() override { stop(); }

  std::string address() const override { return loop_->address(); }
  std::uint32_t incarnation() const override { return loop_->incarnation(); }
  std::size_t members() const override { return loop_->members(); }

  void stop() override {
    if (thread_.in_forked_child()) return;
    loop_->request_stop();
    thread_.join();
  }

 private:
  const std::shared_ptr<Loop> loop_;
  LoopThread thread_;
};

}  // namespace

Result<std::unique_ptr<Coordinator>> Coordinator::start(const CoordinatorSettings& settings) {
  if (settings.timing.heartbeat_limit <= Duration::zero()) {
    return Status(Code::invalid_argument, "the heartbeat limit must be above 0");
  }
  // Names are looked up in the caller's thread, and what can't begin is told to the caller.
  auto listen = resolve_first(settings.bind);
  if (!listen.ok()) return listen.status();
  try {
    auto loop = std::make_shared<Loop>(settings.timing);
    if (Status status = loop->open(settings, listen.value()); !status.ok()) return status;
    return std::unique_ptr<Coordinator>(std::make_unique<ThreadedCoordinator>(std::move(loop)));
  } catch (const std::exception& error) {
    return shortage("a coordinator", error);
  }
}

}  // namespace pyccl::runtime
