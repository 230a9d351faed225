// The reader's loop; see frame_reader.hpp for the idea.
#include "transport/frame_reader.hpp"

#include <algorithm>
#include <cstring>

#include "transport/lending.hpp"

namespace pyccl::transport {

namespace {

constexpr std::size_t lending_buffer_bytes = 256;

}  // namespace

FrameReader::FrameReader(FrameSink* sink)
    : sink_(sink), buffer_(std::make_unique<std::byte[]>(buffer_bytes)) {}

Status FrameReader::read(Stream& stream, std::size_t budget) {
  Life::Watch watch(life_);
  std::array<MutableByteView, pieces_max + 1> views;
  stream_ = &stream;
  taken_ = 0;
  for (std::size_t total = 0; total + taken_ < budget;) {
    const std::size_t count = destinations(views);
    std::size_t offered = 0;
    for (std::size_t i = 0; i < count; ++i) offered += views[i].size();
    const IoResult result = stream.read({views.data(), count});
    total += result.bytes;
    bytes_ += result.bytes;
    place(result.bytes);
    Status status = parse(watch);
    if (watch.over() || stopped_) return {};
    if (!status.ok()) return status;
    if (!result.status.ok()) return result.status;
    if (result.bytes < offered) break;  // nothing more is there; asking again would cost a call
  }
  return {};
}

// Where the next bytes go: the rest of the payload, then the buffer.
std::size_t FrameReader::destinations(std::span<MutableByteView> views) {
  std::size_t count = 0;
  if (token_ != 0 && state_ == State::payload) {
    const auto pieces = target_.view();
    for (std::size_t i = piece_; i < pieces.size(); ++i) {
      views[count++] = i == piece_ ? pieces[i].subspan(piece_at_) : pieces[i];
    }
  }
  if (begin_ > 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  // Behind a reference there may be others, for memory as large as the budget each: what is not
  // read yet can wait for the next turn.
  const std::size_t room = buffer_bytes - end_;
  views[count++] = {buffer_.get() + end_,
                    stream_->lending() == nullptr ? room : std::min(room, lending_buffer_bytes)};
  return count;
}

// Accounts for bytes that a read has put where destinations() said.
void FrameReader::place(std::size_t bytes) {
  if (token_ != 0 && state_ == State::payload) {
    const std::size_t direct = std::min(bytes, rest_);
    advance(direct);
    bytes -= direct;
  }
  end_ += bytes;
}

void FrameReader::advance(std::size_t bytes) {
  rest_ -= bytes;
  const auto pieces = target_.view();
  while (bytes > 0) {
    const std::size_t step = std::min(bytes, pieces[piece_].size() - piece_at_);
    piece_at_ += step;
    bytes -= step;
    if (piece_at_ == pieces[piece_].size()) {
      ++piece_;
      piece_at_ = 0;
    }
  }
}

Status FrameReader::parse(const Life::Watch& watch) {
  for (;;) {
    Status status;
    switch (state_) {
      case State::header:
        if (unparsed().size() < header_bytes) return {};
        status = begin_frame();
        break;
      case State::message:
        if (unparsed().empty() && rest_ > 0) return {};
        status = feed_message();
        break;
      case State::payload:
        if (unparsed().empty() && rest_ > 0) return {};
        status = feed_payload();
        break;
      case State::reference:
        if (unparsed().size() < rest_) return {};
        status = take_reference();
        break;
    }
    if (watch.over() || stopped_) return {};
    if (!status.ok()) return status;
  }
}

Status FrameReader::begin_frame() {
  Result<FrameHeader> header = decode_header(unparsed().first<header_bytes>());
  if (!header.ok()) return header.status();
  header_ = header.value();
  if (header_.references > 0 && stream_->lending() == nullptr) {
    return {Code::protocol_violation, "a segment by reference where none can be taken"};
  }
  begin_ += header_bytes;
  rest_ = header_.length;
  // Set before the callbacks: on_header may end the stream, on_segment may ask for token().
  if (header_.kind == FrameKind::message) state_ = State::message;
  Status status = sink_->on_header(header_);
  if (!status.ok()) return status;
  if (header_.kind == FrameKind::segment) begin_segment();
  return {};
}

void FrameReader::begin_segment() {
  Life::Watch watch(life_);
  MutablePieces target;
  const ReadToken token = sink_->on_segment(header_.segment, target);
  if (watch.over()) return;
  state_ = header_.references > 0 ? State::reference : State::payload;
  std::size_t room = 0;
  for (const MutableByteView& piece : target.view()) room += piece.size();
  if (room == 0) {
    discard();
    return;
  }
  PYCCL_ASSERT(room == (header_.references > 0 ? header_.segment.length : rest_));
  target_ = target;
  token_ = token;
  piece_ = piece_at_ = 0;
}

void FrameReader::discard() {
  token_ = 0;
  target_ = {};
}

Status FrameReader::feed_message() {
  ByteView body;
  if (message_.empty() && unparsed().size() >= rest_) {
    body = unparsed().first(rest_);
  } else {
    const ByteView here = unparsed().first(std::min(rest_, unparsed().size()));
    message_.insert(message_.end(), here.begin(), here.end());
    if (here.size() == rest_) body = message_;
  }
  const std::size_t step = std::min(rest_, unparsed().size());
  begin_ += step;
  rest_ -= step;
  return rest_ == 0 ? end_message(body) : Status{};
}

Status FrameReader::end_message(ByteView body) {
  const std::array<ByteView, 1> pieces{body};
  if (header_.checksummed && payload_checksum(pieces) != header_.payload_checksum) {
    return {Code::io, "a message does not match its checksum"};
  }
  state_ = State::header;
  ++frames_;
  Life::Watch watch(life_);
  sink_->on_message(body);
  if (!watch.over()) message_ = {};
  return {};
}

Status FrameReader::feed_payload() {
  if (token_ == 0) {
    const std::size_t step = std::min(rest_, unparsed().size());
    begin_ += step;
    rest_ -= step;
  }
  const auto pieces = target_.view();
  while (token_ != 0 && rest_ > 0 && begin_ < end_) {
    const MutableByteView to = pieces[piece_].subspan(piece_at_);
    const std::size_t step = std::min(to.size(), unparsed().size());
    std::memcpy(to.data(), unparsed().data(), step);
    begin_ += step;
    advance(step);
  }
  return rest_ == 0 ? end_payload() : Status{};
}

Status FrameReader::end_payload() {
  state_ = State::header;
  if (token_ != 0 && header_.checksummed) {
    std::array<ByteView, pieces_max> views;
    const auto pieces = target_.view();
    std::copy(pieces.begin(), pieces.end(), views.begin());
    if (payload_checksum({views.data(), pieces.size()}) != header_.payload_checksum) {
      return {Code::io, "a segment does not match its checksum"};
    }
  }
  ++frames_;
  const ReadToken token = token_;
  discard();
  if (token != 0) sink_->on_segment_end(header_.segment, token, true);
  return {};
}

// The reference is here as a whole: copies what it stands for.
Status FrameReader::take_reference() {
  const auto reference =
      decode_reference(unparsed().first(rest_), header_.references, header_.segment.length);
  if (!reference) return {Code::protocol_violation, "a reference that does not fit its segment"};
  begin_ += rest_;
  rest_ = 0;
  auto taken = Lending::Taken::yes;
  if (token_ == 0) {
    stream_->lending()->decline(reference->loan);
  } else {
    taken = stream_->lending()->take(*reference, target_.view());
    if (taken == Lending::Taken::gone) {
      return {Code::io, "the process whose memory was to be read is gone"};
    }
  }
  state_ = State::header;
  ++frames_;
  bytes_ += header_.segment.length;
  taken_ += header_.segment.length;
  const ReadToken token = token_;
  discard();
  if (token != 0) {
    sink_->on_segment_end(header_.segment, token, taken == Lending::Taken::yes);
  }
  return {};
}

void FrameReader::abort() {
  const ReadToken token = token_;
  discard();
  stopped_ = true;
  if (token != 0) sink_->on_segment_end(header_.segment, token, false);
}

}  // namespace pyccl::transport
