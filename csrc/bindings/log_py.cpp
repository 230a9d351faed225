// LogLines for Python; see log_py.hpp.
#include "bindings/log_py.hpp"

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <cstdint>

#include "bindings/convert_py.hpp"
#include "bindings/register_py.hpp"

namespace py = pybind11;

namespace pyccl::bindings {

void ring(int fd) {
  const std::uint64_t one = 1;
  // A full counter refuses, and then there is nothing more to say.
  [[maybe_unused]] const auto written = ::write(fd, &one, sizeof one);
}

void LogLines::add(LogLevel level, std::string_view text) {
  if (static_cast<int>(level) < level_min_) return;
  std::pair<int, std::string> line(static_cast<int>(level), text);
  switch (lines_.push(line)) {
    case Pushed::first: ring(wake_fd_); break;
    case Pushed::full: lost_.fetch_add(1, std::memory_order_relaxed); break;
    case Pushed::behind:
    case Pushed::closed: break;
  }
}

std::vector<std::pair<int, std::string>> LogLines::drain() {
  std::vector<std::pair<int, std::string>> lines;
  lines_.drain(lines);
  if (const auto lost = lost_.exchange(0, std::memory_order_relaxed); lost > 0) {
    lines.emplace_back(static_cast<int>(LogLevel::warning),
                       std::to_string(lost) + " log lines were dropped: nobody read them in time");
  }
  return lines;
}

LogSink sink_for(std::shared_ptr<LogLines> lines) {
  if (!lines) return {};
  return [lines = std::move(lines)](LogLevel level, std::string_view text) {
    lines->add(level, text);
  };
}

void register_log(py::module_& module) {
  py::class_<LogLines, std::shared_ptr<LogLines>>(module, "LogLines")
      .def(py::init<int, int>(), py::arg("wake_fd"), py::arg("level_min"))
      .def("drain", [](LogLines& lines) {
        py::list texts;
        for (const auto& [level, text] : lines.drain()) {
          texts.append(py::make_tuple(level, to_str(text)));
        }
        return texts;
      });
}

}  // namespace pyccl::bindings
