// A process that may be stopped and go on: what reaches it meanwhile waits in its queues.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace pyccl::sim {

class Process {
 public:
  bool alive() const { return alive_; }
  bool paused() const { return paused_; }

  // Runs the action now, later, or never.
  void run(std::function<void()> action) {
    if (!alive_) return;
    if (paused_) {
      inbox_.push_back(std::move(action));
    } else {
      action();
    }
  }

  void pause() { paused_ = true; }

  void resume() {
    paused_ = false;
    auto inbox = std::exchange(inbox_, {});
    for (auto& action : inbox) run(std::move(action));
  }

  void stop() {
    alive_ = false;
    inbox_.clear();
  }

 private:
  bool alive_ = true;
  bool paused_ = false;
  std::vector<std::function<void()>> inbox_;
};

}  // namespace pyccl::sim
