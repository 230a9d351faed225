// The one vote: a round ends when every voter has answered. Voters may be excused when they are
// lost and expected again when they come back; nothing else changes who votes.
#pragma once

#include <map>
#include <set>
#include <utility>

#include "base/ids.hpp"

namespace pyccl::protocol {

template <class Answer>
class Round {
 public:
  void begin(std::set<PeerId> voters) {
    voters_ = std::move(voters);
    answers_.clear();
  }

  void expect(PeerId voter) { voters_.insert(voter); }

  void excuse(PeerId voter) {
    voters_.erase(voter);
    answers_.erase(voter);
  }

  // The last answer of a voter counts; who does not vote is not heard.
  bool answer(PeerId voter, Answer answer) {
    if (!voters_.contains(voter)) return false;
    answers_.insert_or_assign(voter, std::move(answer));
    return true;
  }

  void withdraw(PeerId voter) { answers_.erase(voter); }

  // A round without voters never ends: nobody is there to have agreed.
  bool complete() const { return !voters_.empty() && answers_.size() == voters_.size(); }
  const std::map<PeerId, Answer>& answers() const { return answers_; }

 private:
  std::set<PeerId> voters_;
  std::map<PeerId, Answer> answers_;
};

}  // namespace pyccl::protocol
