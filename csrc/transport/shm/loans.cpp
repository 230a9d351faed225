// Lending, ending and counting; see loans.hpp.
#include "transport/shm/loans.hpp"

#include <algorithm>

namespace pyccl::transport::shm {

Loan LoanBook::lend(std::size_t bytes_lent) {
  reclaim();
  if (next_ - oldest_ == loans_max) return 0;
  if (outstanding_ > 0 && outstanding_ + bytes_lent > window_bytes_) return 0;
  const Loan loan = next_++;
  bytes(loan) = bytes_lent;
  outstanding_ += bytes_lent;
  slot(loan).store(loan_word(loan, LoanState::lent));
  return loan;
}

void LoanBook::cancel(Loan loan) {
  if (loan < oldest_) return;  // the other side has ended it, though it can't know of it
  slot(loan).store(0);
  outstanding_ -= bytes(loan);
  --next_;
}

// What is not lent any more leaves the book, in order. A slot is used again then, so what matters
// of its loan is noted here: that it was refused.
void LoanBook::reclaim() {
  for (; oldest_ != next_; ++oldest_) {
    const std::uint64_t word = slot(oldest_).load();
    if (word == loan_word(oldest_, LoanState::lent)) return;
    if (word == loan_word(oldest_, LoanState::refused)) {
      refused_.push_back(oldest_);
      ever_refused_ = true;
    }
    outstanding_ -= bytes(oldest_);
  }
}

bool LoanBook::settle(Loan loan) {
  if (loan >= oldest_) {
    revoke(loan);  // it has ended, unless the other side lies
    reclaim();
  }
  return std::erase(refused_, loan) == 0;
}

void LoanBook::revoke(Loan loan) {
  std::uint64_t lent = loan_word(loan, LoanState::lent);
  slot(loan).compare_exchange_strong(lent, 0);
}

void LoanBook::revoke_all() {
  for (Loan loan = oldest_; loan != next_; ++loan) revoke(loan);
}

bool LoanBook::relaxed() {
  reclaim();
  return outstanding_ <= window_bytes_ / 2 && next_ - oldest_ <= loans_max / 2;
}

Loan LoanBook::relaxed_with() const {
  std::size_t left = outstanding_;
  Loan loan = oldest_;
  while (loan != next_) {
    left -= bytes_[loan % loans_max];
    ++loan;
    if (left <= window_bytes_ / 2 && next_ - loan <= loans_max / 2) break;
  }
  return loan - 1;
}

bool end_loan(std::span<LoanSlot, loans_max> slots, Loan loan, LoanState end) {
  std::uint64_t lent = loan_word(loan, LoanState::lent);
  return slots[loan % loans_max].state.compare_exchange_strong(lent, loan_word(loan, end));
}

}  // namespace pyccl::transport::shm
