// The loans of one end; see transport/lending.hpp. Each has a slot in shared memory, which holds
// its number and its state: lent by this end, then either taken or refused by the other one, or
// revoked by this one. Whichever comes first wins, since each of these is one atomic exchange.
//
// The borrower reads first and takes then. So if it could take the loan, this end had not revoked
// it, and what was read is what was lent.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "transport/lending.hpp"
#include "transport/shm/region.hpp"

namespace pyccl::transport::shm {

enum class LoanState : std::uint64_t { lent = 1, taken = 2, refused = 3 };

inline std::uint64_t loan_word(Loan loan, LoanState state) {
  return loan << 2 | static_cast<std::uint64_t>(state);
}

// The lender's view.
class LoanBook {
 public:
  LoanBook(std::span<LoanSlot, loans_max> slots, std::size_t window_bytes)
      : slots_(slots), window_bytes_(window_bytes) {}

  Loan lend(std::size_t bytes);
  void cancel(Loan loan);
  bool settle(Loan loan);  // false: refused
  void revoke(Loan loan);
  void revoke_all();
  bool ever_refused() const { return ever_refused_; }

  // Half of what may be lent at once is free again: worth going on.
  bool relaxed();
  // The loan with whose end that will be so.
  Loan relaxed_with() const;

 private:
  std::atomic<std::uint64_t>& slot(Loan loan) { return slots_[loan % loans_max].state; }
  std::size_t& bytes(Loan loan) { return bytes_[loan % loans_max]; }
  void reclaim();

  std::span<LoanSlot, loans_max> slots_;
  std::size_t window_bytes_;
  std::array<std::size_t, loans_max> bytes_{};
  Loan oldest_ = 1;  // that has not ended as far as known
  Loan next_ = 1;
  std::size_t outstanding_ = 0;  // bytes from oldest_ on
  std::vector<Loan> refused_;    // and not settled yet
  bool ever_refused_ = false;
};

// The borrower's: true if the loan was still there.
bool end_loan(std::span<LoanSlot, loans_max> slots, Loan loan, LoanState end);

}  // namespace pyccl::transport::shm
