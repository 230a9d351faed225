// A stream through shared memory: a ring of bytes for each direction, and a bell for whoever
// sleeps.
//
// Who waits in its loop says so in the memory, and only then the other one rings. As long as both
// are busy no call of the system is made. The bell's end is how the death of the other process is
// noticed; what it had written before can still be read.
//
// Where the processes may read each other's memory, large payloads don't go through the ring at
// all; see transport/lending.hpp.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "transport/lending.hpp"
#include "transport/life.hpp"
#include "transport/network.hpp"
#include "transport/poller.hpp"
#include "transport/shm/bell.hpp"
#include "transport/shm/foreign_memory.hpp"
#include "transport/shm/loans.hpp"
#include "transport/shm/region.hpp"
#include "transport/shm/ring.hpp"

namespace pyccl::transport::shm {

// How an end lends, and whom it borrows from.
struct Terms {
  std::size_t lend_bytes_min = 0;
  std::size_t lend_window = 0;
  std::shared_ptr<const Mark> mark;  // what the other end knows this process by
  ForeignMemory other{Whereabouts{}};
};

class ShmStream final : public Stream, private Lending, private PollHandler, private MemoryHandler {
 public:
  // `end` 0 has made the offer.
  ShmStream(Poller& poller, Mapping mapping, Bell bell, std::size_t end, const Terms& terms,
            std::string remote);
  ~ShmStream() override;

  void set_observer(StreamObserver* observer) override { observer_ = observer; }
  IoResult write(std::span<const ByteView> parts) override;
  IoResult read(std::span<const MutableByteView> parts) override;
  void watch_writable(bool on) override { wants_writable_ = on; }
  void watch_readable(bool on) override { wants_readable_ = on; }
  void end_writes() override;
  void close() override;
  void fail(Status reason) override;
  std::string remote_address() const override { return remote_; }
  bool same_host() const override { return true; }
  Lending* lending() override { return this; }

 private:
  bool lends(std::size_t bytes) const override;
  Loan lend(std::size_t bytes) override;
  void cancel(Loan loan) override { loans_.cancel(loan); }
  bool settle(Loan loan) override { return loans_.settle(loan); }
  void revoke(Loan loan) override { loans_.revoke(loan); }
  Taken take(const Reference& reference, std::span<const MutableByteView> to) override;
  void decline(Loan loan) override { end_borrowed(loan, LoanState::taken); }

  void on_ready(bool readable, bool writable, bool failed) override;
  void on_posted() override;
  bool ready() override { return observer_ != nullptr && (readable() || writable()); }
  void on_memory() override;
  bool doze() override;
  void rouse() override;

  bool readable();
  bool writable();
  bool ended() const;       // the other end writes no more
  bool other_gone() const;  // nor does it read
  void end_ring(Ending how);
  void wake_for_room();
  bool end_borrowed(Loan loan, LoanState state);
  void ring_if(std::uint32_t reason);
  Sleep& own_sleep() { return mapping_.region().sleeps[end_]; }
  Sleep& other_sleep() { return mapping_.region().sleeps[1 - end_]; }

  Poller& poller_;
  Mapping mapping_;
  Bell bell_;
  const std::size_t end_;
  const Terms terms_;
  const std::string remote_;
  RingWriter out_;
  RingReader in_;
  LoanBook loans_;
  StreamObserver* observer_ = nullptr;
  bool wants_readable_ = true;
  bool wants_writable_ = false;
  bool closed_ = false;
  bool writes_ended_ = false;
  bool starved_ = false;  // the last write ended for want of loans, not of room
  bool dead_ = false;     // the other process, or it has closed its end
  std::optional<Status> posted_failure_;
  Life life_;
};

}  // namespace pyccl::transport::shm
