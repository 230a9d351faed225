// The arrays of one operation: where they lie, and what keeps that memory alive.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "engine/request.hpp"

namespace pyccl::bindings {

// Buffers that Python has lent us. While one is held its owner lives, and can neither be resized
// nor moved. Everything here needs Python's lock.
class HeldBuffers {
 public:
  HeldBuffers() = default;
  HeldBuffers(HeldBuffers&& other) noexcept : buffers_(std::exchange(other.buffers_, {})) {}
  HeldBuffers& operator=(HeldBuffers&& other) noexcept {
    release();
    buffers_ = std::exchange(other.buffers_, {});
    return *this;
  }
  ~HeldBuffers() { release(); }

  void reserve(std::size_t count) { buffers_.reserve(count); }
  // None if the object has no such buffer; the flags are those of PyObject_GetBuffer.
  const Py_buffer* hold(pybind11::handle object, int flags);
  void release_newest();
  void release();

 private:
  // Some buffers point into themselves, so the vector must not grow beyond what was reserved.
  std::vector<Py_buffer> buffers_;
};

class Arrays {
 public:
  explicit Arrays(std::size_t count_max);

  // True if the array was taken as it is: contiguous memory of a known type, and writable where it
  // will be written. Otherwise nothing has changed, and arrays.py finds out what is wrong. Without
  // an output the input is overwritten; a dtype of -1 is read off the buffer.
  bool add(pybind11::handle input, pybind11::handle output, int dtype);

  std::vector<engine::Array> take_arrays() { return std::exchange(arrays_, {}); }
  HeldBuffers take_buffers() { return std::move(buffers_); }

 private:
  std::size_t count_max_;
  std::vector<engine::Array> arrays_;
  HeldBuffers buffers_;
};

}  // namespace pyccl::bindings
