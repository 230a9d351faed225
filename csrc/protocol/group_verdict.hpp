// How the operations of one group or subgroup stand by the reports of its members that are kept,
// and what becomes of each. What of that fits into a view is decide()'s business (decide.cpp).
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.hpp"
#include "protocol/messages.hpp"
#include "protocol/view.hpp"

namespace pyccl::protocol {

// What one member reports, ordered.
struct Voter {
  Voter(PeerId peer, const Report& report);

  // Numbers that are neither listed nor still to come were committed so long ago that the member
  // has forgotten the hint: it closes an operation in no other way without all others' knowing.
  bool committed_long_ago(OpKey op) const;

  PeerId peer;
  const Report* report;
  std::map<OpKey, const OperationReport*> operations;
  std::map<Numbering, std::uint32_t> next;
};
using Voters = std::map<PeerId, Voter>;

class GroupVerdict {
 public:
  // The members in rank order; those without a voter are lost, and `lost` says how.
  GroupVerdict(GroupId id, const std::vector<PeerId>& members, const Voters& voters,
               const std::map<PeerId, std::string>& lost);

  enum class Fate {
    decided,
    restarts,
    ends,  // of a subgroup that has lost a member: all know without being told
  };
  struct Judgement {
    Fate fate = Fate::restarts;
    Decision decision;
    bool may_wait = false;  // for the next view: somebody refused it
  };
  Judgement judge(OpKey op) const;

  // Not committed at one voter at least.
  std::set<OpKey> open() const;
  std::size_t open_at(const Voter& voter) const;

  GroupId id() const { return id_; }
  const std::vector<PeerId>& members() const { return members_; }
  const std::vector<const Voter*>& voters() const { return voters_; }  // in rank order

 private:
  struct Tally;
  Tally count(OpKey op) const;
  Decision refused(OpKey op, const Tally& tally) const;

  GroupId id_;
  std::vector<PeerId> members_;
  std::vector<const Voter*> voters_;
  std::set<PeerId> lost_;
  PeerId lost_last_;
  std::string loss_;
};

}  // namespace pyccl::protocol
