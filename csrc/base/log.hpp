// Where the core's few log lines go. The core formats nothing but plain sentences; levels, colours
// and files belong to whoever installs the sink (Python's logging, or standard error).
#pragma once

#include <functional>
#include <string_view>

namespace pyccl {

enum class LogLevel { debug, info, warning, error };
using LogSink = std::function<void(LogLevel, std::string_view)>;

}  // namespace pyccl
