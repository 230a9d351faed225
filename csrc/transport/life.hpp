// Callbacks may destroy the object that called them. A function that goes on after a callback puts
// a Watch on its stack and asks it whether the object is still there.
#pragma once

#include <memory>

namespace pyccl::transport {

class Life {
 public:
  Life() = default;
  Life(const Life&) = delete;
  Life& operator=(const Life&) = delete;
  ~Life() { *over_ = true; }

  class Watch {
   public:
    explicit Watch(const Life& life) : over_(life.over_) {}
    bool over() const { return *over_; }

   private:
    std::shared_ptr<const bool> over_;
  };

 private:
  std::shared_ptr<bool> over_ = std::make_shared<bool>(false);
};

}  // namespace pyccl::transport
