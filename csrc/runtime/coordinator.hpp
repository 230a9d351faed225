// A coordinator on a reactor thread of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/log.hpp"
#include "base/status.hpp"
#include "protocol/limits.hpp"

namespace pyccl::runtime {

struct CoordinatorSettings {
  std::string bind = "127.0.0.1:48148";   // port 0 picks one
  std::optional<std::string> state_path;  // none: does not survive a restart
  protocol::Timing timing;
  LogSink log;
};

class Coordinator {
 public:
  static Result<std::unique_ptr<Coordinator>> start(const CoordinatorSettings&);
  virtual ~Coordinator() = default;  // stop()
  virtual std::string address() const = 0;
  virtual std::uint32_t incarnation() const = 0;
  virtual std::size_t members() const = 0;  // of the present view
  virtual void stop() = 0;                  // at once; the members go on without it
};

}  // namespace pyccl::runtime
