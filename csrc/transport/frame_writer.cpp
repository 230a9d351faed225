// Gathering, writing and remembering; see frame_writer.hpp.
#include "transport/frame_writer.hpp"

#include <algorithm>
#include <utility>

#include "base/mark.hpp"

namespace pyccl::transport {

FrameWriter::Outcome FrameWriter::write(Stream& stream, std::span<FrameList* const> queues,
                                        FramePool& pool, std::uint32_t received, bool acknowledge) {
  Batch batch;
  if (current_ != nullptr) gather_rest(batch);
  bool enough_lent = false;
  for (FrameList* queue : queues) {
    for (OutgoingFrame* frame = queue->first(); frame != nullptr && !batch.full();
         frame = frame->next) {
      enough_lent = !borrowable(*frame);
      if (enough_lent) break;  // it waits, and those behind it
      gather(batch, frame, queue, received);
    }
  }
  OutgoingFrame* alone = nullptr;
  if (batch.frame_count == 0 && acknowledge) {
    alone = pool.take();
    alone->kind = FrameKind::acknowledgement;
    gather(batch, alone, nullptr, received);
  }
  Outcome outcome;
  outcome.blocked = enough_lent;
  if (batch.frame_count == 0) return outcome;
  const IoResult result = stream.write({batch.views.data(), batch.view_count});
  outcome.bytes = result.bytes;
  outcome.blocked = enough_lent || result.bytes < batch.bytes;
  outcome.status = result.status;
  bytes_ += result.bytes;
  settle(batch, result.bytes, received, outcome, pool);
  if (alone != nullptr && result.bytes == 0) pool.give_back(alone);
  return outcome;
}

// Makes a loan of a segment that should go by reference; false: not now.
bool FrameWriter::borrowable(OutgoingFrame& frame) {
  if (lending_ == nullptr || checksums_ || frame.kind != FrameKind::segment ||
      !lending_->lends(frame.length)) {
    return true;
  }
  frame.loan = lending_->lend(frame.length);
  if (frame.loan == 0) return false;
  encode_reference(frame.loan, frame.payload.view(), frame.body);
  return true;
}

// The rest of the frame that an earlier write began.
void FrameWriter::gather_rest(Batch& batch) {
  batch.frames[0] = current_;
  batch.sources[0] = nullptr;
  std::size_t skip = current_written_;
  std::size_t size = 0;
  const auto add = [&](ByteView view) {
    const std::size_t step = std::min(skip, view.size());
    skip -= step;
    if (step == view.size()) return;
    batch.views[batch.view_count++] = view.subspan(step);
    size += view.size() - step;
  };
  add(current_header_);
  const Pieces wire = current_->wire();
  for (const ByteView& piece : wire.view()) add(piece);
  batch.sizes[0] = size;
  batch.bytes = size;
  batch.frame_count = 1;
}

void FrameWriter::gather(Batch& batch, OutgoingFrame* frame, FrameList* source,
                         std::uint32_t received) {
  const std::size_t i = batch.frame_count++;
  encode(*frame, received, batch.headers[i]);
  batch.frames[i] = frame;
  batch.sources[i] = source;
  batch.sizes[i] = header_bytes + frame->wire_bytes();
  batch.bytes += batch.sizes[i];
  batch.views[batch.view_count++] = batch.headers[i];
  const Pieces wire = frame->wire();
  for (const ByteView& piece : wire.view()) batch.views[batch.view_count++] = piece;
}

void FrameWriter::encode(OutgoingFrame& frame, std::uint32_t received, HeaderBytes& out) const {
  FrameHeader header;
  header.kind = frame.kind;
  header.length = frame.length;
  header.acknowledged = received;
  header.segment = frame.segment;
  header.checksummed = checksums_ && frame.length > 0;
  if (frame.loan != 0) header.references = frame.payload.view().size();
  if (header.checksummed) {
    if (!frame.has_checksum) frame.checksum = payload_checksum(frame.payload.view());
    frame.has_checksum = true;
    header.payload_checksum = frame.checksum;
  }
  encode_header(header, out);
}

// Divides the bytes that the stream has taken among the frames that were offered.
void FrameWriter::settle(const Batch& batch, std::size_t bytes, std::uint32_t received,
                         Outcome& outcome, FramePool& pool) {
  std::size_t i = 0;
  for (; i < batch.frame_count && bytes > 0; ++i) {
    OutgoingFrame* frame = batch.frames[i];
    const std::size_t taken = std::min(bytes, batch.sizes[i]);
    bytes -= taken;
    if (frame != current_) {
      if (batch.sources[i] != nullptr) batch.sources[i]->remove(frame);
      const bool segment = frame->kind == FrameKind::segment;
      (frame->pinned ? outcome.pinned_bytes
       : segment     ? outcome.segment_bytes
                     : outcome.message_bytes) += frame->length;
      acknowledgement_sent_ = received;
      current_ = frame;
      current_header_ = batch.headers[i];
      current_written_ = 0;
    }
    current_written_ += taken;
    if (taken == batch.sizes[i]) {
      current_ = nullptr;
      written(frame, pool);
    }
  }
  // What was not begun stays in its queue, as if nothing had been lent for it.
  for (std::size_t last = batch.frame_count; last > i; --last) {
    OutgoingFrame* frame = batch.frames[last - 1];
    if (frame == current_ || frame->loan == 0) continue;
    lending_->cancel(frame->loan);
    frame->take_loan_back();
  }
}

void FrameWriter::written(OutgoingFrame* frame, FramePool& pool) {
  if (frame->loan != 0) bytes_ += frame->length;
  if (frame->kind == FrameKind::acknowledgement) {
    pool.give_back(frame);
  } else if (keeps_) {
    if (frame->kind == FrameKind::message) unacknowledged_message_bytes_ += frame->length;
    unacknowledged_.push_back(frame);
  } else {
    ++acknowledged_;
    pool.give_back(frame);
  }
}

bool FrameWriter::acknowledged(std::uint32_t count, FramePool& pool, FrameList& again) {
  const std::uint32_t fresh = count - acknowledged_;
  if (static_cast<std::int32_t>(fresh) <= 0) return true;  // late news
  if (fresh > unacknowledged_.count()) return false;
  for (std::uint32_t i = 0; i < fresh; ++i) {
    OutgoingFrame* frame = unacknowledged_.pop_front();
    if (frame->kind == FrameKind::message) unacknowledged_message_bytes_ -= frame->length;
    if (frame->loan != 0 && !lending_->settle(frame->loan) && !frame->forgotten) {
      frame->take_loan_back();
      again.push_back(frame);
    } else {
      pool.give_back(frame);
    }
  }
  acknowledged_ = count;
  return true;
}

void FrameWriter::forget(OpId op) {
  for (OutgoingFrame* frame = unacknowledged_.first(); frame != nullptr; frame = frame->next) {
    if (frame->kind != FrameKind::segment || frame->segment.op != op) continue;
    if (frame->loan != 0) lending_->revoke(frame->loan);
    frame->forgotten = true;
    frame->payload = {};
  }
  if (current_ == nullptr || current_->kind != FrameKind::segment || current_->forgotten ||
      current_->segment.op != op) {
    return;
  }
  current_->forgotten = true;
  if (current_->loan != 0) {
    lending_->revoke(current_->loan);
    return;  // its reference goes on and finds nothing
  }
  // Half of it is on the wire under a header that promises all of it.
  PYCCL_MARK("forgotten when half on the wire");
  current_->body.clear();
  std::size_t skip = current_written_ > header_bytes ? current_written_ - header_bytes : 0;
  for (const ByteView& piece : current_->payload.view()) {
    const std::size_t step = std::min(skip, piece.size());
    skip -= step;
    const ByteView rest = piece.subspan(step);
    current_->body.insert(current_->body.end(), rest.begin(), rest.end());
  }
  current_written_ = std::min(current_written_, header_bytes);
  current_->payload = {};
  current_->payload.push(current_->body);
}

FrameWriter::Returned FrameWriter::take_back(FrameList& messages, FrameList& segments,
                                             FramePool& pool) {
  Returned returned;
  const auto take = [&](OutgoingFrame* frame) {
    if (frame->pinned || frame->forgotten || frame->kind == FrameKind::acknowledgement) {
      pool.give_back(frame);
      return;
    }
    frame->has_checksum = false;
    if (frame->loan != 0) frame->take_loan_back();  // which has ended with the stream
    const bool segment = frame->kind == FrameKind::segment;
    PYCCL_MARK("goes out again on another connection");
    if (segment ? PYCCL_MUTANT("dropped-retransmission") : PYCCL_MUTANT("dropped-message")) {
      pool.give_back(frame);
      return;
    }
    (segment ? returned.segment_bytes : returned.message_bytes) += frame->length;
    (segment ? segments : messages).push_front(frame);
  };
  if (current_ != nullptr) take(std::exchange(current_, nullptr));
  while (!unacknowledged_.empty()) take(unacknowledged_.pop_back());
  unacknowledged_message_bytes_ = 0;
  return returned;
}

}  // namespace pyccl::transport
