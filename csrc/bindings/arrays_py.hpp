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
  // `world`: the members that they are cut for; 0 where that does not matter.
  Arrays(std::size_t count_max, Rank world);

  // True if the array was taken as it is: contiguous memory of a known type, and writable where it
  // will be written. Otherwise nothing has changed, and arrays.py finds out what is wrong. Without
  // an output the input is overwritten; a dtype of -1 is read off the buffer.
  bool add(pybind11::handle input, pybind11::handle output, int dtype);
  // The same for an input and an output of different sizes, of which one may be missing.
  bool add_apart(pybind11::handle input, pybind11::handle output, int dtype);
  // By elements of each rank's share, instead of equally.
  void cut(std::vector<std::uint64_t> shares) { request_.shares = std::move(shares); }
  void cut_both(std::vector<std::uint64_t> sends, std::vector<std::uint64_t> receives) {
    request_.send_shares = std::move(sends);
    request_.receive_shares = std::move(receives);
  }

  // What they say of the operation: memory, sizes, division.
  engine::Request take_request() { return std::exchange(request_, {}); }
  HeldBuffers take_buffers() { return std::move(buffers_); }

 private:
  const Py_buffer* hold(pybind11::handle object, bool writable, int& dtype);

  std::size_t count_max_;
  engine::Request request_;
  HeldBuffers buffers_;
};

}  // namespace pyccl::bindings
