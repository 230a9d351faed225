// Quantization for Python: the codecs by name, and their kernels on arrays at hand.
//
// What is read and what is written come as Arrays, as for a collective; an operation uses them up.
// Their owners stay lent until the function has returned, so the work is done without Python's
// lock.
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays_py.hpp"
#include "bindings/convert_py.hpp"
#include "bindings/register_py.hpp"
#include "kernels/quantize.hpp"

namespace py = pybind11;

namespace pyccl::bindings {
namespace {

using kernels::BlockFormat;

[[noreturn]] void refuse(std::string reason) {
  throw_status(Status(Code::invalid_argument, std::move(reason)));
}

BlockFormat format_of(int codec, std::uint32_t block, int scale) {
  const BlockFormat format{.codec = static_cast<kernels::Codec>(codec),
                           .block = block,
                           .scale = static_cast<kernels::DataType>(scale)};
  if (const Status refusal = kernels::check(format); !refusal.ok()) throw_status(refusal);
  return format;
}

std::size_t wire_bytes(const BlockFormat& format, std::size_t count) {
  return (count + format.block - 1) / format.block * kernels::block_bytes(format);
}

void check_floating(kernels::DataType dtype) {
  if (kernels::is_floating(dtype)) return;
  refuse("holds " + std::string(kernels::name_of(dtype)) + ", which can't be quantized");
}

engine::Array only(Arrays& arrays) {
  const engine::Request request = arrays.take_request();
  if (request.arrays.size() != 1) refuse("one array is expected");
  return request.arrays[0];
}

float encode(Arrays& from, Arrays& to, const BlockFormat& format, int rounding, std::uint64_t seed,
             std::uint64_t first_block) {
  const engine::Array source = only(from);
  const engine::Array target = only(to);
  check_floating(source.dtype);
  if (target.dtype != kernels::DataType::u8 ||
      target.output_count != wire_bytes(format, source.input_count)) {
    refuse("the blocks take " + std::to_string(wire_bytes(format, source.input_count)) + " u8");
  }
  const py::gil_scoped_release unlocked;
  return kernels::encode({.source = source.input,
                          .dtype = source.dtype,
                          .count = source.input_count,
                          .destination = target.output,
                          .format = format,
                          .rounding = {.mode = static_cast<kernels::Rounding>(rounding),
                                       .seed = seed,
                                       .first_block = first_block}});
}

float decode(Arrays& from, Arrays& to, const BlockFormat& format) {
  const engine::Array source = only(from);
  const engine::Array target = only(to);
  check_floating(target.dtype);
  if (source.dtype != kernels::DataType::u8 ||
      source.input_count != wire_bytes(format, target.output_count)) {
    refuse("the blocks take " + std::to_string(wire_bytes(format, target.output_count)) + " u8");
  }
  const py::gil_scoped_release unlocked;
  return kernels::decode({.source = source.input,
                          .format = format,
                          .count = target.output_count,
                          .destination = target.output,
                          .dtype = target.dtype});
}

// The blocks of an array are thrown away, so a few at a time are enough.
float round_one(const engine::Array& array, const BlockFormat& format, kernels::Rounding mode,
                std::uint64_t seed) {
  constexpr std::size_t blocks_at_once = 64;
  std::vector<std::byte> wire(blocks_at_once * kernels::block_bytes(format));
  const std::size_t bytes = kernels::size_of(array.dtype);
  const std::size_t step = blocks_at_once * format.block;
  float largest = 0;
  for (std::size_t at = 0; at < array.input_count; at += step) {
    const float found =
        kernels::encode({.source = array.input + at * bytes,
                         .dtype = array.dtype,
                         .count = std::min<std::size_t>(step, array.input_count - at),
                         .destination = wire.data(),
                         .format = format,
                         .rounding = {.mode = mode, .seed = seed, .first_block = at / format.block},
                         .rounded = array.output + at * bytes,
                         .rounded_dtype = array.dtype});
    largest = std::max(largest, found);
  }
  return largest;
}

float rounded(Arrays& arrays, const BlockFormat& format, int rounding, std::uint64_t seed) {
  const engine::Request request = arrays.take_request();
  for (const engine::Array& array : request.arrays) {
    check_floating(array.dtype);
    if (array.input_count != array.output_count) refuse("input and output differ in size");
  }
  const py::gil_scoped_release unlocked;
  float largest = 0;
  for (const engine::Array& array : request.arrays) {
    const auto mode = static_cast<kernels::Rounding>(rounding);
    largest = std::max(largest, round_one(array, format, mode, seed));
  }
  return largest;
}

// Each array of `from` into the one of `to` at its place. One side is f32.
void convert(Arrays& from, Arrays& to) {
  const engine::Request sources = from.take_request();
  const engine::Request targets = to.take_request();
  if (sources.arrays.size() != targets.arrays.size()) refuse("input and output differ in number");
  for (std::size_t i = 0; i < sources.arrays.size(); ++i) {
    const engine::Array& source = sources.arrays[i];
    const engine::Array& target = targets.arrays[i];
    check_floating(source.dtype);
    check_floating(target.dtype);
    if (source.input_count != target.output_count) refuse("input and output differ in size");
    if (source.dtype != kernels::DataType::f32 && target.dtype != kernels::DataType::f32) {
      refuse("neither input nor output is f32");
    }
  }
  const py::gil_scoped_release unlocked;
  for (std::size_t i = 0; i < sources.arrays.size(); ++i) {
    const engine::Array& source = sources.arrays[i];
    const engine::Array& target = targets.arrays[i];
    if (target.dtype == kernels::DataType::f32) {
      kernels::widen(source.input, source.dtype, source.input_count,
                     reinterpret_cast<float*>(target.output));
    } else {
      kernels::narrow(reinterpret_cast<const float*>(source.input), source.input_count,
                      target.output, target.dtype);
    }
  }
}

}  // namespace

void register_quantize(py::module_& module) {
  py::dict codecs;
  for (int code = PYCCL_CODEC_NONE + 1; code < PYCCL_CODEC_COUNT; ++code) {
    codecs[py::str(std::string(kernels::name_of(static_cast<kernels::Codec>(code))))] = code;
  }
  py::dict roundings;
  for (int code = 0; code < PYCCL_ROUNDING_COUNT; ++code) {
    roundings[py::str(std::string(kernels::name_of(static_cast<kernels::Rounding>(code))))] = code;
  }
  module.attr("codecs") = codecs;
  module.attr("roundings") = roundings;

  py::class_<BlockFormat>(module, "BlockFormat")
      .def(py::init(&format_of), py::arg("codec"), py::arg("block"), py::arg("scale"))
      .def("wire_bytes", &wire_bytes, py::arg("count"));
  module.def("encode", &encode, py::arg("source"), py::arg("target"), py::arg("format"),
             py::arg("rounding"), py::arg("seed"), py::arg("first_block") = 0);
  module.def("decode", &decode, py::arg("source"), py::arg("target"), py::arg("format"));
  module.def("rounded", &rounded, py::arg("arrays"), py::arg("format"), py::arg("rounding"),
             py::arg("seed"));
  module.def("convert", &convert, py::arg("source"), py::arg("target"));
}

}  // namespace pyccl::bindings
