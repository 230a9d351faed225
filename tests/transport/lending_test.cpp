// Payloads by reference: the numbers of loans, the race between taking and revoking, and memory
// that can't be read.
#include <doctest/doctest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "transport/framing.hpp"
#include "transport/lanes.hpp"
#include "transport/lending.hpp"
#include "transport/shm/loans.hpp"
#include "transport/shm_harness.hpp"

namespace pyccl::transport::test {

using shm::ForeignMemory;
using shm::LoanBook;
using shm::LoanState;
using Taken = Lending::Taken;

namespace {

// Both ends of a stream through memory.
struct Ends {
  Ends() : harness(shm::ShmOptions{1}) {
    auto offer = harness.memory().offer("").take();
    auto answer = harness.memory().accept(offer->text(), "").take();
    lender = offer->complete(answer.text).take();
    borrower = std::move(answer.stream);
  }
  Lending& lending() { return *lender->lending(); }
  Lending& borrowing() { return *borrower->lending(); }

  ShmHarness harness;
  std::unique_ptr<Stream> lender;
  std::unique_ptr<Stream> borrower;
};

// What the other end would get to read.
Reference reference_to(Loan loan, std::span<const ByteView> pieces) {
  Bytes bytes;
  encode_reference(loan, pieces, bytes);
  std::uint64_t size = 0;
  for (const ByteView& piece : pieces) size += piece.size();
  return *decode_reference(bytes, pieces.size(), size);
}

Reference reference_to(Loan loan, const Bytes& memory) {
  const std::array<ByteView, 1> pieces{ByteView(memory)};
  return reference_to(loan, pieces);
}

// Cuts memory into `count` pieces of uneven sizes.
template <class View>
std::vector<View> cut(View memory, std::size_t count, Prng& prng) {
  std::vector<View> pieces;
  for (; count > 1; --count) {
    const std::size_t size = 1 + prng.below(memory.size() / count);
    pieces.push_back(memory.first(size));
    memory = memory.subspan(size);
  }
  pieces.push_back(memory);
  return pieces;
}

}  // namespace

TEST_CASE("a reference must fit its segment") {
  Bytes bytes;
  const Bytes memory(100);
  const std::array<ByteView, 2> pieces{ByteView(memory).first(30), ByteView(memory).subspan(30)};
  encode_reference(7, pieces, bytes);
  REQUIRE(bytes.size() == reference_bytes(2));
  const auto reference = decode_reference(bytes, 2, 100);
  REQUIRE(reference);
  CHECK(reference->loan == 7);
  CHECK(reference->view()[1].address == reinterpret_cast<std::uintptr_t>(memory.data()) + 30);
  CHECK(reference->view()[1].size == 70);
  CHECK(!decode_reference(bytes, 2, 99));
  CHECK(!decode_reference(bytes, 2, 101));
  store_little(bytes.data() + 16, std::uint64_t{0});
  CHECK(!decode_reference(bytes, 2, 70));
  store_little(bytes.data() + 16, ~std::uint64_t{0} - 69);  // 70 more make 0
  CHECK(!decode_reference(bytes, 2, 0));
}

TEST_CASE("a header by reference comes back as it was") {
  FrameHeader header;
  header.kind = FrameKind::segment;
  header.segment = segment_header(5, 100'000);
  header.references = 3;
  HeaderBytes bytes;
  encode_header(header, bytes);
  const auto decoded = decode_header(bytes);
  REQUIRE(decoded.ok());
  CHECK(decoded.value().references == 3);
  CHECK(decoded.value().length == reference_bytes(3));
  CHECK(decoded.value().segment.length == 100'000);
  CHECK(decoded.value().payload_checksum == 0);
  header.references = pieces_max + 1;
  encode_header(header, bytes);
  CHECK(decode_header(bytes).status().code() == Code::protocol_violation);
}

TEST_CASE("so much is lent and no more, and what has ended is lent anew") {
  std::array<shm::LoanSlot, shm::loans_max> slots{};
  LoanBook book(slots, 1000);
  CHECK(book.lend(5000) == 1);  // a single one is never too large
  CHECK(book.lend(1) == 0);
  CHECK(!book.relaxed());
  CHECK(book.relaxed_with() == 1);
  CHECK(shm::end_loan(slots, 1, LoanState::taken));
  CHECK(!shm::end_loan(slots, 1, LoanState::taken));  // not twice
  CHECK(book.relaxed());
  for (Loan loan = 2; loan < 6; ++loan) CHECK(book.lend(250) == loan);
  CHECK(book.lend(1) == 0);
  CHECK(book.relaxed_with() == 3);
  book.cancel(5);
  book.cancel(4);
  CHECK(book.lend(500) == 4);
  book.revoke(2);
  CHECK(!shm::end_loan(slots, 2, LoanState::taken));
  CHECK(book.lend(250) == 5);
  book.revoke_all();
  for (Loan loan = 2; loan < 6; ++loan) CHECK(!shm::end_loan(slots, loan, LoanState::taken));
  CHECK(book.relaxed());
}

TEST_CASE("there are as many loans as slots") {
  std::array<shm::LoanSlot, shm::loans_max> slots{};
  LoanBook book(slots, 1 << 30);
  for (Loan loan = 1; loan <= shm::loans_max; ++loan) CHECK(book.lend(1) == loan);
  CHECK(book.lend(1) == 0);
  CHECK(book.relaxed_with() == shm::loans_max / 2);
  CHECK(shm::end_loan(slots, 1, LoanState::taken));
  CHECK(book.lend(1) == shm::loans_max + 1);
}

TEST_CASE("who refuses a loan is remembered until it is settled") {
  std::array<shm::LoanSlot, shm::loans_max> slots{};
  LoanBook book(slots, 1 << 30);
  for (Loan loan = 1; loan < 4; ++loan) CHECK(book.lend(1) == loan);
  CHECK(shm::end_loan(slots, 1, LoanState::taken));
  CHECK(shm::end_loan(slots, 2, LoanState::refused));
  while (book.lend(1) != 0) {
  }  // into the slots of those that have ended, too
  CHECK(book.ever_refused());
  CHECK(book.settle(1));
  CHECK(!book.settle(2));
  CHECK(book.settle(3));  // acknowledged and never taken: it can't be any more
  CHECK(!shm::end_loan(slots, 3, LoanState::taken));
}

// The other side may write anything into the slots.
TEST_CASE("spoilt slots harm nobody") {
  std::array<shm::LoanSlot, shm::loans_max> slots{};
  LoanBook book(slots, 100'000);
  Prng prng(1);
  std::vector<Loan> lent;
  for (int i = 0; i < 100'000; ++i) {
    slots[prng.below(shm::loans_max)].state =
        prng.chance(1, 2) ? prng.next() : shm::loan_word(prng.below(300), LoanState{prng.below(4)});
    switch (prng.below(5)) {
      case 0:
      case 1:
        if (const Loan loan = book.lend(prng.below(5000)); loan != 0) lent.push_back(loan);
        break;
      case 2:
        if (lent.empty()) break;
        if (prng.chance(1, 2)) {
          book.cancel(lent.back());
          lent.pop_back();
        } else {
          (void)book.settle(lent.front());
          lent.erase(lent.begin());
        }
        break;
      case 3:
        if (!lent.empty()) book.revoke(lent[prng.below(lent.size())]);
        break;
      case 4:
        if (!book.relaxed()) (void)book.relaxed_with();
        break;
    }
  }
  book.revoke_all();
  CHECK(book.lend(1) != 0);
}

TEST_CASE("what is lent is read from any pieces into any pieces") {
  Ends ends;
  REQUIRE(ends.lending().lends(1 << 20));
  REQUIRE(!ends.lending().lends(100));
  Prng prng(1);
  for (std::size_t from = 1; from <= pieces_max; ++from) {
    const std::size_t to = 1 + prng.below(pieces_max);
    const Bytes memory = pattern(10'000 + prng.below(100'000), prng.next());
    Bytes target(memory.size());
    const auto there = cut(ByteView(memory), from, prng);
    const auto here = cut(MutableByteView(target), to, prng);
    const Loan loan = ends.lending().lend(memory.size());
    REQUIRE(loan != 0);
    CHECK(ends.borrowing().take(reference_to(loan, there), here) == Taken::yes);
    CHECK(target == memory);
    CHECK(ends.lending().settle(loan));
  }
}

TEST_CASE("what was revoked is not taken, and what can't be read is refused") {
  Ends ends;
  const Bytes memory = pattern(20'000, 1);
  Bytes target(memory.size());
  const std::array<MutableByteView, 1> here{MutableByteView(target)};
  const Loan first = ends.lending().lend(memory.size());
  ends.lending().revoke(first);
  CHECK(ends.borrowing().take(reference_to(first, memory), here) == Taken::revoked);
  const Loan unwanted = ends.lending().lend(memory.size());
  ends.borrowing().decline(unwanted);
  CHECK(ends.lending().settle(unwanted));

  void* gone = ::mmap(nullptr, memory.size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  REQUIRE(gone != MAP_FAILED);
  const std::array<ByteView, 2> there{ByteView(memory).first(8000),
                                      ByteView(static_cast<const std::byte*>(gone), 12'000)};
  const Loan second = ends.lending().lend(memory.size());
  CHECK(ends.borrowing().take(reference_to(second, there), here) == Taken::unreadable);
  CHECK(ends.lending().lends(1 << 20));
  CHECK(!ends.lending().settle(second));
  CHECK(!ends.lending().lends(1 << 20));
  ::munmap(gone, memory.size());

  // A stream that ends takes its loans along.
  Ends others;
  const Loan last = others.lending().lend(memory.size());
  others.lender->close();
  CHECK(others.borrowing().take(reference_to(last, memory), here) == Taken::revoked);
}

// The lender writes to its memory as soon as it has revoked. Whatever was taken must be what was
// lent, all of it.
TEST_CASE("nothing is taken that was read after it was revoked") {
  Ends ends;
  constexpr std::size_t size = 64 * 1024;
  constexpr int rounds = 3000;
  Bytes memory(size);
  std::atomic<Loan> offered{0};
  std::atomic<Loan> answered{0};
  std::atomic<bool> over{false};
  int taken = 0;
  int revoked = 0;
  std::thread borrower([&] {
    Bytes target(size);
    const std::array<MutableByteView, 1> here{MutableByteView(target)};
    for (Loan seen = 0; !over;) {
      const Loan loan = offered.load();
      if (loan == seen) {
        std::this_thread::yield();
        continue;
      }
      seen = loan;
      std::memset(target.data(), 0xee, size);
      if (ends.borrowing().take(reference_to(loan, memory), here) == Taken::yes) {
        ++taken;
        if (target[0] != static_cast<std::byte>(loan % 200) ||
            std::memcmp(target.data(), target.data() + 1, size - 1) != 0) {
          std::abort();
        }
      } else {
        ++revoked;
      }
      answered = loan;
    }
  });
  Prng prng(1);
  for (int i = 0; i < rounds; ++i) {
    const Loan loan = ends.lending().lend(size);
    REQUIRE(loan != 0);
    std::memset(memory.data(), static_cast<int>(loan % 200), size);
    // Before it can be read, after it has been, and mostly in the midst of it.
    if (i % 10 == 0) ends.lending().revoke(loan);
    offered = loan;
    for (std::uint64_t wait = i % 10 == 1 ? ~0ull : prng.below(20'000); wait > 0; --wait) {
      if (answered.load() == loan) break;
    }
    ends.lending().revoke(loan);
    std::memset(memory.data(), 0xdd, size);
    while (answered.load() != loan) std::this_thread::yield();
    CHECK(ends.lending().settle(loan));
  }
  over = true;
  borrower.join();
  CHECK(taken + revoked == rounds);
  CHECK(taken >= rounds / 10);
  CHECK(revoked >= rounds / 10);
}

TEST_CASE("memory of another process than the one that was met is not taken for its") {
  const shm::Nonce nonce{1, 2};
  const auto mark = shm::Mark::make(nonce);
  REQUIRE(mark != nullptr);
  const shm::Whereabouts own = mark->whereabouts();
  CHECK(ForeignMemory(own).readable());
  shm::Whereabouts wrong = own;
  wrong.mark = {1, 3};
  CHECK(ForeignMemory(wrong).read({}, {}) == ForeignMemory::Outcome::gone);
  wrong = own;
  wrong.mark_at = 0;
  CHECK(ForeignMemory(wrong).read({}, {}) == ForeignMemory::Outcome::unreadable);
  // A child has all of its parent's memory, but not its mark.
  int wait[2];
  REQUIRE(::pipe(wait) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    ::close(wait[1]);
    (void)!::read(wait[0], &byte, 1);
    ::_exit(0);
  }
  shm::Whereabouts elsewhere = own;
  elsewhere.pid = static_cast<std::uint64_t>(child);
  CHECK(ForeignMemory(elsewhere).read({}, {}) == ForeignMemory::Outcome::gone);
  ::close(wait[0]);
  ::close(wait[1]);
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(ForeignMemory(elsewhere).read({}, {}) == ForeignMemory::Outcome::gone);
}

// Segments whose memory turns out to be unreadable come again through the ring, and the connection
// lives on.
TEST_CASE("what can't be read comes as bytes") {
  ShmHarness harness(shm::ShmOptions{1});
  Lane lane(harness, 1);
  lane.network.spoil_references(true);
  for (std::uint32_t seq = 1; seq <= 40; ++seq) lane.left.send_segment(seq, 100'000, seq % 16 + 1);
  REQUIRE(lane.until([&] { return lane.right.segments.size() == 40; }));
  CHECK(lane.right.incomplete > 0);
  for (const auto& [seq, count] : lane.right.segments) CHECK(count == 1);
  CHECK(lane.right.connection_counts.empty());
  CHECK(lane.left.connection_counts.empty());
}

// The sender forgets, and its memory is gone, while its references are on their way.
TEST_CASE("forgotten loans are not taken, and those around them are") {
  ShmHarness harness(shm::ShmOptions{1});
  Lane lane(harness, 1);
  std::set<std::uint32_t> dropped;
  Prng prng(1);
  std::uint32_t seq = 0;
  for (int round = 0; round < 50; ++round) {
    const std::uint32_t first = seq + 1;
    for (int i = 0; i < 6; ++i) {
      lane.left.send_segment(++seq, 50'000 + static_cast<std::uint32_t>(prng.below(300'000)));
    }
    lane.left.channel->flush();
    for (std::uint32_t each = first; each <= seq; ++each) {
      if (!prng.chance(1, 2)) continue;
      lane.left.drop(each);
      dropped.insert(each);
    }
    REQUIRE(lane.until([&] {
      for (std::uint32_t each = first; each <= seq; ++each) {
        if (!dropped.contains(each) && !lane.right.segments.contains(each)) return false;
      }
      return true;
    }));
  }
  CHECK(lane.right.incomplete > 0);
  CHECK(lane.right.connection_counts.empty());
}

}  // namespace pyccl::transport::test
