// Reading, writing, sleeping and ending; see stream.hpp.
//
// Sleeping: an end first says what it wants to be woken for and then looks whether it is there
// already; the other one first publishes what it has done and then looks who sleeps. All four are
// sequentially consistent, so at least one of the two sees the other.
#include "transport/shm/stream.hpp"

#include <utility>

namespace pyccl::transport::shm {

namespace {

Status violation() {
  return {Code::protocol_violation, "the other side has broken the memory that both share"};
}

}  // namespace

ShmStream::ShmStream(Poller& poller, Mapping mapping, Bell bell, std::size_t end,
                     const Terms& terms, std::string remote)
    : poller_(poller),
      mapping_(std::move(mapping)),
      bell_(std::move(bell)),
      end_(end),
      terms_(terms),
      remote_(std::move(remote)),
      out_(mapping_.region().directions[end], mapping_.ring(end)),
      in_(mapping_.region().directions[1 - end], mapping_.ring(1 - end)),
      loans_(mapping_.region().loans[end], terms.lend_window) {
  mapping_.close_fd();
  poller_.watch(bell_.fd(), this, true, false);
  poller_.watch_memory(this);
}

ShmStream::~ShmStream() { close(); }

IoResult ShmStream::write(std::span<const ByteView> parts) {
  if (closed_) return {0, Status(Code::closed, "the stream is closed")};
  if (writes_ended_) return {0, Status(Code::closed, "the stream takes no more")};
  if (other_gone()) {
    return {0, Status(Code::io, "writing to " + remote_ + ": closed by the other side")};
  }
  const std::size_t count = out_.write(parts);
  if (out_.broken()) return {count, violation()};
  if (count > 0) ring_if(Sleep::for_data);
  if (!out_.has_room(1)) starved_ = false;
  return {count, {}};
}

IoResult ShmStream::read(std::span<const MutableByteView> parts) {
  if (closed_) return {0, Status(Code::closed, "the stream is closed")};
  const bool last = ended();  // before the bytes: those that came before the end are there now
  const std::size_t count = in_.read(parts);
  if (in_.broken() || out_.broken()) return {count, violation()};
  if (count > 0) wake_for_room();
  if (count == 0 && last && in_.empty()) return {0, Status(Code::io, "closed by the other side")};
  return {count, {}};
}

bool ShmStream::ended() const {
  return dead_ || mapping_.region().directions[1 - end_].ending.load() != Ending::open;
}

bool ShmStream::other_gone() const {
  return dead_ || mapping_.region().directions[1 - end_].ending.load() == Ending::closed;
}

bool ShmStream::readable() {
  if (closed_ || !wants_readable_) return false;
  return !in_.empty() || in_.broken() || out_.broken() || ended();
}

// A quarter at least, and half of the loans: not to be called for each byte that the other side
// reads.
bool ShmStream::writable() {
  if (closed_ || !wants_writable_ || other_gone()) return false;
  return starved_ ? loans_.relaxed() : out_.has_room(out_.capacity() / 4);
}

void ShmStream::on_memory() {
  Life::Watch watch(life_);
  if (readable()) observer_->on_readable();
  if (watch.over() || observer_ == nullptr || !writable()) return;
  observer_->on_writable();
}

bool ShmStream::doze() {
  if (closed_) return true;
  Sleep& sleep = own_sleep();
  std::uint32_t wants = wants_readable_ ? Sleep::for_data : 0;
  if (wants_writable_) {
    wants |= Sleep::for_room;
    constexpr std::uint64_t no = ~std::uint64_t{0} >> 1;
    const std::uint64_t room_at = out_.written() + out_.capacity() / 4 - out_.capacity();
    sleep.room_at.store(starved_ ? out_.written() + no / 2 : room_at);
    sleep.loan_at.store(starved_ ? loans_.relaxed_with() : no);
  }
  sleep.wants.store(wants);
  if (!ready()) return true;
  rouse();
  return false;
}

void ShmStream::rouse() {
  if (!closed_) own_sleep().wants.store(0, std::memory_order_relaxed);
}

void ShmStream::wake_for_room() {
  const auto past = static_cast<std::int64_t>(in_.position() - other_sleep().room_at.load());
  if (past >= 0) ring_if(Sleep::for_room);
}

void ShmStream::ring_if(std::uint32_t reason) {
  auto& wants = other_sleep().wants;
  if ((wants.load() & reason) != 0 && (wants.exchange(0) & reason) != 0) bell_.ring();
}

bool ShmStream::lends(std::size_t bytes) const {
  return bytes >= terms_.lend_bytes_min && !closed_ && !loans_.ever_refused() &&
         mapping_.region().borrows[1 - end_].load(std::memory_order_relaxed);
}

Loan ShmStream::lend(std::size_t bytes) {
  const Loan loan = loans_.lend(bytes);
  starved_ = loan == 0;
  return loan;
}

Lending::Taken ShmStream::take(const Reference& reference, std::span<const MutableByteView> to) {
  switch (terms_.other.read(reference.view(), to)) {
    case ForeignMemory::Outcome::gone: return Taken::gone;
    case ForeignMemory::Outcome::complete:
      return end_borrowed(reference.loan, LoanState::taken) ? Taken::yes : Taken::revoked;
    case ForeignMemory::Outcome::unreadable: break;
  }
  const bool refused = end_borrowed(reference.loan, LoanState::refused);
  return refused ? Taken::unreadable : Taken::revoked;
}

bool ShmStream::end_borrowed(Loan loan, LoanState state) {
  if (closed_) return false;
  const bool lent = end_loan(mapping_.region().loans[1 - end_], loan, state);
  const auto past = static_cast<std::int64_t>(loan - other_sleep().loan_at.load());
  if (past >= 0) ring_if(Sleep::for_room);
  return lent;
}

// The bell only ends the wait; what there is to do, the memory says.
void ShmStream::on_ready(bool, bool, bool) {
  if (bell_.hear()) return;
  dead_ = true;
  poller_.unwatch(bell_.fd());
}

void ShmStream::end_ring(Ending how) {
  writes_ended_ = true;
  mapping_.region().directions[end_].ending.store(how);
}

void ShmStream::end_writes() {
  if (closed_ || writes_ended_) return;
  end_ring(Ending::no_more_writes);
  ring_if(Sleep::for_data);
}

void ShmStream::close() {
  if (posted_failure_) poller_.cancel_post(this);
  posted_failure_.reset();
  if (std::exchange(closed_, true)) return;
  loans_.revoke_all();
  end_ring(Ending::closed);
  poller_.unwatch_memory(this);
  poller_.unwatch(bell_.fd());
  bell_.close();  // which wakes the other side
}

void ShmStream::fail(Status reason) {
  close();
  posted_failure_ = std::move(reason);
  poller_.post(this);
}

void ShmStream::on_posted() {
  Status status = std::move(*posted_failure_);
  posted_failure_.reset();
  if (observer_ != nullptr) observer_->on_failed(std::move(status));
}

}  // namespace pyccl::transport::shm
