// Frames on their way out: what one is, lists of them and the pool that they return to, so that a
// transfer in full swing allocates nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "base/bytes.hpp"
#include "transport/framing.hpp"
#include "transport/lending.hpp"

namespace pyccl::transport {

struct OutgoingFrame {
  FrameKind kind = FrameKind::message;
  bool pinned = false;     // part of a connection's handshake: dies with the connection
  bool forgotten = false;  // nobody needs it any more; it only keeps the count of what was sent
  SegmentHeader segment;
  Pieces payload;            // in the caller's memory, or in `body`
  std::uint32_t length = 0;  // bytes of payload
  Loan loan = 0;             // the payload goes by reference, which is in `body`
  bool has_checksum = false;
  std::uint32_t checksum = 0;  // kept, because a blocked connection offers the same frame again
  Bytes body;                  // a message, a reference, or the copied rest of a forgotten segment

  // Behind the header.
  Pieces wire() const {
    if (loan == 0) return payload;
    Pieces reference;
    reference.push(body);
    return reference;
  }
  std::size_t wire_bytes() const { return loan == 0 ? length : body.size(); }
  void take_loan_back() {
    loan = 0;
    body.clear();
  }

  OutgoingFrame* previous = nullptr;
  OutgoingFrame* next = nullptr;
};

// A list that owns its frames.
class FrameList {
 public:
  FrameList() = default;
  FrameList(const FrameList&) = delete;
  FrameList& operator=(const FrameList&) = delete;
  ~FrameList() {
    while (!empty()) delete pop_front();
  }

  bool empty() const { return first_ == nullptr; }
  std::size_t count() const { return count_; }
  OutgoingFrame* first() const { return first_; }

  void push_back(OutgoingFrame* frame) { insert(frame, last_, nullptr); }
  void push_front(OutgoingFrame* frame) { insert(frame, nullptr, first_); }
  OutgoingFrame* pop_front() { return remove(first_); }
  OutgoingFrame* pop_back() { return remove(last_); }

  OutgoingFrame* remove(OutgoingFrame* frame) {
    (frame->previous != nullptr ? frame->previous->next : first_) = frame->next;
    (frame->next != nullptr ? frame->next->previous : last_) = frame->previous;
    frame->previous = frame->next = nullptr;
    --count_;
    return frame;
  }

 private:
  void insert(OutgoingFrame* frame, OutgoingFrame* before, OutgoingFrame* after) {
    frame->previous = before;
    frame->next = after;
    (before != nullptr ? before->next : first_) = frame;
    (after != nullptr ? after->previous : last_) = frame;
    ++count_;
  }

  OutgoingFrame* first_ = nullptr;
  OutgoingFrame* last_ = nullptr;
  std::size_t count_ = 0;
};

class FramePool {
 public:
  OutgoingFrame* take() {
    if (free_.empty()) return new OutgoingFrame;
    return free_.pop_front();
  }

  void give_back(OutgoingFrame* frame) {
    constexpr std::size_t frames_max = 256;
    constexpr std::size_t body_bytes_max = 16 * 1024;
    if (free_.count() >= frames_max) {
      delete frame;
      return;
    }
    Bytes body = std::move(frame->body);
    *frame = OutgoingFrame{};
    body.clear();
    if (body.capacity() <= body_bytes_max) frame->body = std::move(body);
    free_.push_front(frame);
  }

 private:
  FrameList free_;
};

}  // namespace pyccl::transport
